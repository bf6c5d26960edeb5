"""Compare runs: up to ten, over each other or side by side, by step, time, tokens or train loss; and what differs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import pandas as pd
import streamlit as st

from trainvitals.schema import Chart, Description, RunSummary, Status, VerdictState
from trainvitals.store.errors import StoreError
from trainvitals.views import alignment, downloads, runs_table
from trainvitals.views.cards import definitions
from trainvitals.views.chart_options import chosen_options
from trainvitals.views.compare_charts import Course, comparison
from trainvitals.views.health import freshness
from trainvitals.views.live import opened, refresh_seconds
from trainvitals.views.measured import key_texts
from trainvitals.views.run_picker import chosen_id, current, runs_in
from trainvitals.views.run_view import RunView
from trainvitals.views.store_folder import store_folder
from trainvitals.views.tab import paced
from trainvitals.views.words import clean, number, plain, steps

MAX_RUNS, MAX_METRICS = 10, 12
FIRST_METRICS = ("loss.heldout", "loss.train", "stability.sharpness", "accuracy.heldout", "hessian.top", "gap.loss",
                 "train_loss", "loss")  # fmt: skip
NUM_FIRST = 4
LAYOUTS = ("overlay", "side by side")
Views = Mapping[str, RunView]  # by the name that the page gives a run


def page() -> None:
    """Show the page."""
    st.header("Compare runs", anchor=False)
    if current(store_folder()) is None and not _readable():
        return
    runs = {run.id: run for run in _readable()}
    _pick_from_table(list(runs.values()))
    chosen = _chosen(runs)
    if len(chosen) < 2:
        st.info("Pick two runs or more above: tick them in the list of all runs, or type a part of a name. Runs of one "
                "store folder can be compared; `trainvitals import` brings others in.")  # fmt: skip
        if not chosen:
            return
    left, right = st.columns([2, 1])
    by = left.segmented_control("Align by", alignment.ALIGNMENTS, default=alignment.STEP, required=True, key="align",
                                bind="query-params", help="By train loss, runs are compared where they fit the train "
                                "data equally well: a flatter minimum at another loss says little.")  # fmt: skip
    layout = right.segmented_control("Charts", LAYOUTS, default=LAYOUTS[0], required=True, key="layout",
                                     bind="query-params")  # fmt: skip
    every = [seconds for run in chosen if (seconds := refresh_seconds(run.status)) is not None]

    @st.fragment(run_every=paced(2 * min(every) if every else None))
    def part() -> None:
        try:
            with ExitStack() as stack:
                _body({name: stack.enter_context(opened(run)) for name, run in _named(chosen).items()},
                      str(by), layout == LAYOUTS[1])  # fmt: skip
        except StoreError as error:
            st.warning(plain(str(error), 600))

    part()


def _readable() -> list[RunSummary]:
    try:
        return [run for run in runs_in(store_folder()) if run.problem is None]
    except StoreError:
        return []


def _pick_from_table(runs: Sequence[RunSummary]) -> None:
    fold = st.expander(f"All {len(runs)} runs: filter, sort, tick", key="list", bind="query-params", on_change="rerun")
    if not fold.open:
        return
    with fold:
        words, with_tags, of_status = st.columns(3)
        found = runs_table.matching(
            runs,
            words.text_input("Name holds", key="find", bind="query-params", placeholder="words"),
            with_tags.multiselect("Tags", sorted({tag for run in runs for tag in run.tags}), key="tags",
                                  bind="query-params"),
            of_status.multiselect("Status", [str(status) for status in Status], key="status", bind="query-params"),
        )  # fmt: skip
        event = st.dataframe(runs_table.table(found), key="all-runs", hide_index=True, on_select="rerun",
                             selection_mode="multi-row", height=min(300, 40 + 36 * max(len(found), 1)))  # fmt: skip
        ticked = [found[row].id for row in event["selection"]["rows"] if row < len(found)]
        st.button(f"Compare the {len(ticked)} ticked" if ticked else "Tick runs to compare them", key="compare-ticked",
                  disabled=not ticked, on_click=_take, args=(ticked[:MAX_RUNS],))  # fmt: skip
        st.caption("A click on a column's head sorts. Tags and notes are given by `trainvitals tag RUN TAG` and "
                   "`trainvitals note RUN TEXT`: the dashboard writes to no run.")  # fmt: skip


def _take(ids: list[str]) -> None:
    st.session_state["runs"] = ids


def _chosen(runs: Mapping[str, RunSummary]) -> list[RunSummary]:
    shown = chosen_id()
    first = [run_id for run_id in (shown, *runs) if run_id in runs]
    ids = st.multiselect(f"Runs (up to {MAX_RUNS})", list(runs), default=list(dict.fromkeys(first))[:2], key="runs",
                         max_selections=MAX_RUNS, bind="query-params")  # fmt: skip
    return [runs[run_id] for run_id in ids if run_id in runs]


def _named(runs: Sequence[RunSummary]) -> dict[str, RunSummary]:
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else f"{run.name} {run.id[-4:]}": run for run in runs}


def _body(views: Views, by: str, side_by_side: bool) -> None:
    options = chosen_options()
    for view in views.values():
        view.options = options
    now = time.time()
    heard = [f"{name}: {freshness(view.status, view.updated, now)}" for name, view in views.items()]
    st.caption(plain("; ".join(heard), 1000))
    names = _metrics(views)
    if by == alignment.LOSS:
        _at_matched_loss(views, names)
    described = {name: next(view.descriptions[name] for view in views.values() if name in view.descriptions)
                 for name in names}  # fmt: skip
    wide = side_by_side and len(views) > 2
    for i in range(0, len(names), 1 if wide else 2):
        row = names[i : i + (1 if wide else 2)]
        for column, name in zip(st.columns(1 if wide else 2, gap="small"), row, strict=False):
            with column:
                _chart(views, described[name], by, side_by_side)
    _table(views, names)
    _differences(views)
    _definitions(views, names)


def _metrics(views: Views) -> list[str]:
    known = sorted({name for view in views.values() for name in view.latest if _is_drawn(view, name)})
    first = [name for name in FIRST_METRICS if name in known] or known
    return st.multiselect("Metrics", known, default=first[:NUM_FIRST], key="metrics", max_selections=MAX_METRICS,
                          bind="query-params")  # fmt: skip


def _is_drawn(view: RunView, name: str) -> bool:
    """Whether a metric has one line a run: a number, or the first of a few named numbers."""
    if name in alignment.TOKEN_NAMES:
        return False
    value = view.latest[name][1].value
    return value is None or np.ndim(value) == 0 or view.descriptions[name].chart == Chart.LINES


def _points(view: RunView, name: str) -> pd.DataFrame:
    points = view.measured(name).points
    if points.empty:
        return points
    keys = key_texts(points)
    return points.loc[keys == keys.iloc[0]]


def _reference(view: RunView, by: str) -> pd.DataFrame | None:
    """Return what a run is aligned by, where that is a metric of its own."""
    names = {alignment.TOKENS: alignment.TOKEN_NAMES, alignment.LOSS: alignment.LOSS_NAMES}.get(by, ())
    name = alignment.first_known(names, view.latest.__contains__)
    return None if name is None else view.points(name)


def _chart(views: Views, description: Description, by: str, side_by_side: bool) -> None:
    courses, without = [], []
    for place, (name, view) in enumerate(views.items()):
        if description.name not in view.latest:
            without.append(name)
            continue
        points = _points(view, description.name)
        x = alignment.aligned(points, by, _reference(view, by), view.run.started)
        if np.isfinite(x).any():
            courses.append(Course(name, place, points, x))
        else:
            without.append(name)
    options = next(iter(views.values())).options
    with st.container(border=True, height="stretch", gap="xsmall"):
        st.markdown(f"**{plain(description.title)}**")
        st.caption(plain(description.summary))
        if not courses:
            st.info(_nothing(by, description.name))
            return
        figure = comparison(
            description, courses, alignment.TITLES[by], side_by_side=side_by_side, falls=by == alignment.LOSS,
            revision=f"{description.name} {by}", options=options,
        )  # fmt: skip
        st.plotly_chart(figure, key=f"compare-{description.name}", alt=plain(f"{description.title} of several runs"),
                        config=options.config(downloads.file_name("compare", description.name)))  # fmt: skip
        if without:
            st.caption(f"Not in the chart, for want of {plain(description.name)}"
                       f"{'' if by in (alignment.STEP, alignment.TIME) else f' or of {by}'}: "
                       f"{plain(', '.join(without), 400)}")  # fmt: skip


def _nothing(by: str, name: str) -> str:
    if by == alignment.TOKENS:
        return "No run counts its tokens: log them with `run.log(tokens=...)`, the number seen so far."
    if by == alignment.LOSS:
        return 'No run has a train loss: it comes with `probes=["gap"]`, or with `run.log(train_loss=...)`.'
    return f"Nothing of {plain(name)} in the chosen steps."


def _at_matched_loss(views: Views, names: Sequence[str]) -> None:
    """Show each metric at the step where a run first fitted the train data as well as all of them once did."""
    losses = {name: _reference(view, alignment.LOSS) for name, view in views.items()}
    level = alignment.common_level([loss for loss in losses.values() if loss is not None])
    if level is None:
        return
    rows = []
    for name, view in views.items():
        loss = losses[name]
        step = None if loss is None else alignment.first_at_or_below(loss, level)
        at = {} if step is None else {m: alignment.value_at(_all(view, m), step) for m in names}
        rows.append({"Run": clean(name, 60), "Step": None if step is None else round(step), **at})
    with st.container(border=True, gap="xsmall"):
        st.markdown(f"**At the same train loss, {number(level)}**")
        st.caption("The lowest train loss that every run reached. Each metric where the run first got there, on the "
                   "straight line between two measurements; empty where one of the two is not there.")  # fmt: skip
        config = {name: st.column_config.NumberColumn(format="%.4g") for name in names}
        st.dataframe(pd.DataFrame(rows), hide_index=True, key="matched-loss", column_config=config)


def _all(view: RunView, name: str) -> pd.DataFrame:
    points = view.points(name)
    return points.loc[(keys := key_texts(points)) == keys.iloc[0]] if len(points) else points


def _table(views: Views, names: Sequence[str]) -> None:
    found = (VerdictState.ALARM, VerdictState.WATCH)
    rows = []
    for name, view in views.items():
        said = [f"{v.title}{'' if v.since is None else f' since {steps(v.since)}'}" for v in view.verdicts
                if v.state in found and not v.is_informational]  # fmt: skip
        rows.append({
            "Run": clean(name, 60), "Status": str(view.status), "Last step": view.last_step,
            "Found": clean("; ".join(said) or "nothing", 400), **runs_table.last_values(view.run, names),
            "Tags": [clean(tag, 40) for tag in view.run.tags], "Note": clean(view.run.note, 400),
        })  # fmt: skip
    st.subheader("Where they ended", anchor=False)
    config = {name: st.column_config.NumberColumn(format="%.4g") for name in names}
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="compared", column_config=config)


def _differences(views: Views) -> None:
    st.subheader("What differs in their settings", anchor=False)
    rows = runs_table.differences({clean(name, 60): runs_table.settings(view.run.meta)
                                   for name, view in views.items()})  # fmt: skip
    if rows.empty:
        st.caption("Nothing that was recorded. `tv.watch(..., config=...)` records the settings of a run.")
    else:
        st.dataframe(rows, hide_index=True, key="differences")


def _definitions(views: Views, names: Sequence[str]) -> None:
    for view in views.values():
        definitions(view, [name for name in names if name in view.descriptions])
        return


page()
