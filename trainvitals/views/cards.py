"""Cards on the page: title, what it shows, its chart, and its definition behind a fold."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from functools import partial

import plotly.graph_objects as go
import streamlit as st

from trainvitals.schema import Chart, Description, Status
from trainvitals.views import charts, downloads
from trainvitals.views.card import Card
from trainvitals.views.run_view import RunView
from trainvitals.views.step_range import dragged
from trainvitals.views.store_folder import store_folder
from trainvitals.views.words import latex, plain

CHART_CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "toImage"]}
DRAG = {"dragmode": "select", "selectdirection": "h"}  # a stretch of steps, for all charts; of a run that is over
_log = logging.getLogger(__name__)


def grid(view: RunView, cards: Iterable[Card]) -> None:
    """Show the cards that the run has something for, two beside each other."""
    row: list[Card] = []
    for item in (c for c in cards if c.is_recorded(view)):
        if item.wide:
            _show_row(view, row)
            show(view, item)
            row = []
        elif len(row) == 1:
            _show_row(view, [*row, item])
            row = []
        else:
            row = [item]
    _show_row(view, row)


def _show_row(view: RunView, row: Sequence[Card]) -> None:
    if not row:
        return
    for column, item in zip(st.columns(2, gap="small"), row, strict=False):
        with column:
            show(view, item)


def show(view: RunView, item: Card) -> None:
    """Show one card. An error while drawing stands in the card; the others are drawn."""
    what = hashlib.sha1(repr((view.run.id, item.title, item.names)).encode(), usedforsecurity=False).hexdigest()[:16]
    with st.container(border=True, height="stretch", gap="xsmall"):
        st.markdown(f"**{plain(item.title)}**")
        st.caption(plain(item.summary))
        try:
            _chart(view, item, what)
        except Exception as error:
            _log.exception("the card %s cannot be drawn", item.names)
            st.error(f"This card cannot be drawn: {plain(error)}")
        _folds(view, item.names, what)


def _folds(view: RunView, names: Iterable[str], what: str) -> None:
    """Show what the numbers mean and the numbers themselves, each behind a fold; the second is made when opened."""
    names = [name for name in names if name in view.latest]
    with st.container(horizontal=True, gap="small"):
        known = [view.descriptions[name] for name in names]
        with st.popover("Definition", type="tertiary", icon=":material/function:"):
            for description in known:
                _definition(description)
        data = st.popover("Data", type="tertiary", icon=":material/download:", key=f"data-{what}", on_change="rerun")
        if data.open:
            with data:
                downloads.buttons(view, names, what, store_folder())


def definitions(view: RunView, names: Iterable[str]) -> None:
    """Show the definitions of these metrics behind a fold."""
    known = [view.descriptions[name] for name in names if name in view.descriptions]
    if known:
        with st.expander("Definition"):
            for description in known:
                _definition(description)


def _chart(view: RunView, item: Card, what: str) -> None:
    recorded = [name for name in item.names if name in view.latest]
    reasons = {view.latest[name][1].missing for name in recorded} - {None}
    if all(view.points(name).empty for name in recorded):
        st.info(f"Undefined so far: {plain('; '.join(sorted(map(str, reasons))) or 'no value yet')}")
        return
    if all(_is_out_of_view(view, name) for name in recorded):
        st.info("Nothing was measured in the chosen steps.")
        return
    is_over_steps = item.over_steps and _has_step_axis(view, recorded)
    onsets = view.onsets if is_over_steps else ()

    is_dragged = is_over_steps and view.status in (Status.FINISHED, Status.CRASHED)

    def drawn() -> go.Figure:
        figure = charts.with_onsets(item.draw(view, what), onsets, view.span)
        return figure.update_layout(DRAG) if is_dragged else figure

    token = (view.token(*recorded), view.span, view.window, view.options, onsets, is_dragged)
    figure = view.once(f"figure {what}", token, drawn)
    config, alt = view.options.config(downloads.file_name(view.run.name, *item.names[:1])), plain(item.title)
    key = f"chart-{what}"
    if is_dragged:
        st.plotly_chart(figure, key=key, config=config, alt=alt, on_select=partial(dragged, key), selection_mode="box")
    else:
        st.plotly_chart(figure, key=key, config=config, alt=alt)
    if reasons:
        st.caption(f"Undefined at the last measurement: {plain('; '.join(sorted(map(str, reasons))))}")


def _has_step_axis(view: RunView, names: Iterable[str]) -> bool:
    return all(view.descriptions[name].chart not in (Chart.LANDSCAPE, Chart.PLANE) for name in names)


def _is_out_of_view(view: RunView, name: str) -> bool:
    if view.descriptions[name].chart == Chart.WATERFALL:
        return view.spectra(name).empty
    if view.descriptions[name].chart == Chart.LANDSCAPE:
        return view.landscapes(name).empty
    return view.measured(name).points.empty


def _definition(description: Description) -> None:
    title, name = plain(description.title), plain(description.name)
    st.markdown(f"**{title}** · {name}, definition version {description.version}")
    if description.formula:
        st.latex(latex(description.formula))
    lines = [("Shows", description.summary), ("Unit", _unit(description.unit)), ("Undefined", description.undefined),
             ("Source", description.source), ("Needs", description.cost)]  # fmt: skip
    lines += [(f"Line “{line.label}”", line.source) for line in description.references]
    st.markdown("  \n".join(f"{plain(word)}: {plain(text, 1000)}" for word, text in lines if text))


def _unit(unit: str) -> str:
    return "dimensionless" if unit == "1" else unit

