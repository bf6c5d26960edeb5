"""Which run is shown: picked in the sidebar, kept in the address, found only in the store folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from trainvitals.run import list_runs
from trainvitals.schema import RunSummary, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_address import is_address, shown
from trainvitals.views.tab import paced
from trainvitals.views.words import clean, clock, plain

LIST_SECONDS = 2.0  # a new run appears in the picker after this time
PARAMETER = "run"


@st.cache_data(ttl=LIST_SECONDS, show_spinner=False)
def runs_in(store: str) -> list[RunSummary]:
    """Return the runs of the store folder, newest first; shared by all browsers for a moment."""
    return list_runs(store) if is_address(store) or Path(store).is_dir() else []


def place(store: str) -> str:
    """Return where a store is, as the page may show it: an address without its password."""
    return plain(shown(store)) if is_address(store) else plain(Path(store).resolve())


def resolve(wanted: str | None, runs: Sequence[RunSummary]) -> RunSummary | None:
    """Return the run that the address names, the newest readable one when it names none.

    Only runs of the list can be named: an address never opens another file.
    """
    if wanted is None:
        return next((run for run in runs if run.problem is None), runs[0] if runs else None)
    return next((run for run in runs if run.id == wanted), None)


def option_text(run: RunSummary, *, dated: bool = True) -> str:
    """Return how the picker shows a run: one of several with a name by its date first, which no narrow box cuts off."""
    if run.problem is not None:
        return f"{clean(run.name or run.id, 60)} · unreadable"
    started = f"{started_at(run)[5:]} · " if dated else ""
    return f"{started}{clean(run.name, 60)}" + ("" if run.status == Status.FINISHED else f" · {run.status}")


def started_at(run: RunSummary) -> str:
    """Return when the run began, to the minute."""
    return clock(run.started)[:16] if run.started else "?"


def chosen_id() -> str | None:
    """Return the run of the address, or the one that was shown last: moving to another page clears the address."""
    wanted = st.query_params.get(PARAMETER) or st.session_state.get("shown_run")
    return str(wanted) if wanted else None


def keep(run: RunSummary) -> None:
    """Put the run in the address, so that a link opens the same view."""
    st.session_state["shown_run"] = run.id
    if st.query_params.get(PARAMETER) != run.id:
        st.query_params[PARAMETER] = run.id


def picker(store: str) -> None:
    """Show the list in the sidebar; it looks for new runs on its own."""

    @st.fragment(run_every=paced(LIST_SECONDS))
    def part() -> None:
        try:
            runs = runs_in(store)
        except StoreError:
            return  # the page says it
        if not runs:
            _rerun_when_one_appears(store)
            return
        _choose({run.id: run for run in runs})

    part()


def _choose(runs: Mapping[str, RunSummary]) -> None:
    run = resolve(chosen_id(), list(runs.values()))
    st.session_state["picked_run"] = run.id if run else None  # the address decides, the widget follows
    num_named = Counter(other.name for other in runs.values())
    st.selectbox(
        "Run", list(runs), index=0 if run else None, key="picked_run", on_change=_picked,
        args=(tuple(runs),), placeholder=f"{len(runs)} runs",
        format_func=lambda run_id: option_text(runs[run_id], dated=num_named[runs[run_id].name] > 1)
        if run_id in runs else clean(run_id),
    )  # fmt: skip
    if run is not None:
        st.caption(f"Started {plain(started_at(run))}")
    if st.session_state.pop("picked_now", False):
        st.rerun()


def _picked(ids: Sequence[str]) -> None:
    """Put the picked run in the address; callbacks run before the page does.

    The browser names an option by its text. A text that has changed since, as a live run's has when it ends, comes
    in as it was: no run's id, and nobody's choice.
    """
    if st.session_state["picked_run"] in ids:
        st.session_state["picked_now"] = True
        st.session_state["shown_run"] = st.query_params[PARAMETER] = st.session_state["picked_run"]


def _rerun_when_one_appears(store: str) -> None:
    if st.session_state.get("was_empty") and runs_in(store):
        st.rerun()
    st.session_state["was_empty"] = True


def current(store: str) -> RunSummary | None:
    """Return the run to show, or say what to do when there is none."""
    if not is_address(store) and not Path(store).is_dir():
        st.info(
            f"There is no store folder {plain(store)} yet. Train with `tv.watch(..., store=...)` on this folder, run "
            "`trainvitals demo`, or point the dashboard elsewhere with `--store FOLDER`."
        )
        return None
    try:
        runs = runs_in(store)
    except StoreError as error:
        st.error(plain(str(error), 600))
        return None
    if not runs:
        st.info(
            f"No runs in {place(store)} yet. Start one with `tv.watch(model, optimizer, ...)` or "
            "`trainvitals demo`: it appears here by itself."
        )
        return None
    run = resolve(chosen_id(), runs)
    if run is None:
        st.warning(f"There is no run {plain(chosen_id(), 80)} in {place(store)}. It may have been "
                   "moved or deleted: pick another on the left.")  # fmt: skip
        return None
    keep(run)
    if run.problem is not None:
        st.error(f"{plain(run.path)} cannot be read: {plain(run.problem)}")
        return None
    return run

