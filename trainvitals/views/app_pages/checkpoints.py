"""Checkpoints: when they were saved, where the path goes, what lies between, and any two compared."""

from collections.abc import Callable, Iterator

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from trainvitals.schema import Question
from trainvitals.views import path_charts, spectrum_charts
from trainvitals.views.card import Card, card, together
from trainvitals.views.cards import definitions, grid
from trainvitals.views.checkpoint_tables import (
    MATRICES,
    checkpoints_of,
    compared,
    left_out,
    matrix,
    of_pair,
    steps_of,
    table,
)
from trainvitals.views.page import show_page, status_line
from trainvitals.views.run_view import RunView
from trainvitals.views.words import number, plain, steps

COORDINATES, EXPLAINED, SURFACE = "path.pca.coordinates", "path.pca.explained", "path.landscape"
HEIGHTS = ("path.barrier.height", "path.barrier.height_heldout")
CURVE, ENDS, WHOLE = "path.barrier.curve", "path.barrier.ends.curve", "path.barrier.ends.height"
DENSITY, LARGEST = "hessian.density", "hessian.top"
TIMELINES = (("loss.train", "loss.heldout"), ("path.distance.initial", "path.distance.final"))
BESIDE = ("path.barrier.curve_heldout", "path.barrier.ends.curve_heldout", "path.barrier.ends.height",
          "path.barrier.ends.height_heldout")  # one line each: in the sentence, or beside those on the train probe
IN_PAIRS = {"Distance": "path.distance.between", "Angle, degrees": "path.angle.between", "CKA": "path.cka.between"}


def body(view: RunView) -> None:
    """Show the path, the table, and two checkpoints side by side."""
    status_line(view)
    if not view.latest:
        st.info("Nothing was measured in this run yet.")
        return
    st.markdown(f"**{plain(_fact(view), 600)}**")
    if not checkpoints_of(view):
        st.info("This run was watched live: its measured steps stand for checkpoints here. "
                "`trainvitals analyze FOLDER` makes a run of a folder of checkpoints; `--what path` adds the path "
                "through them.")  # fmt: skip
    lead = [item for item in _lead(view) if item.is_recorded(view)]
    grid(view, lead)
    _table(view)
    _pair(view)
    shown = {name for item in lead for name in item.names} | {EXPLAINED, SURFACE, *BESIDE}
    grid(view, [card(d) for d in view.metrics(Question.CHECKPOINTS) if d.name not in shown])
    definitions(view, [name for name in sorted(shown) if name in view.latest and name.startswith("path.")])


def _fact(view: RunView) -> str:
    found, at, lost = checkpoints_of(view), steps_of(view), left_out(view)
    if not at:
        return ""
    unit = str(found.get("unit", "step"))
    words = f"{len(at)} {'checkpoints' if found else 'measured steps'} from {unit} {steps(at[0])} to {steps(at[-1])}."
    if EXPLAINED in view.latest and view.latest[EXPLAINED][1].value is not None:
        first_two = float(np.asarray(view.latest[EXPLAINED][1].value, float)[:2].sum())
        words += f" Two components hold {100 * first_two:.0f} % of the path's variance."
    if HEIGHTS[0] in view.latest and not (points := view.points(HEIGHTS[0])).empty:
        row = points.loc[points["value"].astype(float).idxmax()]
        words += f" The highest barrier between neighbours is {number(float(row['value']))}, on the way to {unit} " \
                 f"{steps(int(row['step']))}"  # fmt: skip
        ends = view.latest[WHOLE][1].value if WHOLE in view.latest else None
        words += "." if ends is None else f"; from the first to the last it is {number(float(ends))}."
    return words + (f" {len(lost)} left out." if len(lost) else "")


def _lead(view: RunView) -> Iterator[Card]:
    marks = [(float(step), "left out") for step in left_out(view)["step"]]
    names = next((names for names in TIMELINES if any(name in view.latest for name in names)), None)
    if names is not None:
        yield together("Timeline", "The checkpoints over the steps of their run; dotted lines are those left out.",
                       *names, marks=marks)  # fmt: skip
    yield Card("Path on its plane", "The weights on the first two components of this path, and the loss around it. "
               "Planes of two runs are not comparable.", (COORDINATES,), _plane, over_steps=False)  # fmt: skip
    yield together("Barriers between neighbours", "How far the loss rises on the straight line from one checkpoint to "
                   "the next: 0 is one valley.", *HEIGHTS)  # fmt: skip
    yield Card("Lines between checkpoints", "The loss on the line to the checkpoint with the highest barrier, and from "
               "the first checkpoint to the last.", (CURVE, ENDS), _curves, over_steps=False)  # fmt: skip
    for name in MATRICES:
        if matrix(view, name) is not None:
            description = view.descriptions[name]
            yield Card(description.title, description.summary, (name,), _pairs_of(name), over_steps=False)


def _pairs_of(name: str) -> Callable[[RunView, str], go.Figure]:
    def draw(view: RunView, revision: str) -> go.Figure:
        at, values = matrix(view, name) or ([], np.empty((0, 0)))
        return path_charts.pairs(view.descriptions[name], at, values, revision=revision)

    return draw


def _plane(view: RunView, revision: str) -> go.Figure:
    points = view.points(COORDINATES)
    coordinates = points.pivot_table(index="step", columns="key", values="value", aggfunc="last")
    explained = view.latest[EXPLAINED][1].value if EXPLAINED in view.latest else None
    shares = [] if explained is None else [float(v) for v in np.atleast_1d(explained)]
    surface = None
    if SURFACE in view.latest and (reading := view.latest[SURFACE][1]).value is not None:
        surface = {"x": reading.details.get("x"), "y": reading.details.get("y"), "losses": reading.value}
        surface = None if surface["x"] is None or surface["y"] is None else surface
    return path_charts.plane(view.descriptions[COORDINATES], coordinates, shares, surface, revision=revision)


def _curves(view: RunView, revision: str) -> go.Figure:
    curves = {}
    heights = view.points(HEIGHTS[0])
    if not heights.empty and CURVE in view.latest:
        step = int(heights.loc[heights["value"].astype(float).idxmax(), "step"])
        curves[f"to step {steps(step)}"] = _curve(view, CURVE, step)
    if ENDS in view.latest:
        curves["first to last"] = _curve(view, ENDS, None)
    name = CURVE if CURVE in view.latest else ENDS
    curves = {title: curve for title, curve in curves.items() if len(curve[0])}
    return path_charts.between(view.descriptions[name], curves, revision=revision)


def _curve(view: RunView, name: str, step: int | None) -> tuple[np.ndarray, np.ndarray]:
    points = view.points(name)
    points = points if step is None else points.loc[points["step"] == step]
    return np.linspace(0, 1, len(points)), points["value"].to_numpy(float)


def _table(view: RunView) -> None:
    rows = view.once("table of checkpoints", view.token(*view.latest), lambda: table(view))
    lost = left_out(view)
    with st.container(border=True, gap="xsmall"):
        st.markdown("**All checkpoints**")
        st.caption("One row each, with the numbers that were measured there.")
        config = {name: st.column_config.NumberColumn(format="%.4g") for name in rows.columns[2:]}
        height = min(400, 40 + 36 * len(rows))
        st.dataframe(rows, hide_index=True, key="checkpoints-table", column_config=config, height=height)
        for step, message in zip(lost["step"], lost["message"], strict=True):
            st.caption(f"Left out at {steps(int(step))}: {plain(message, 600)}")


def _pair(view: RunView) -> None:
    """Show two checkpoints that the reader picks, side by side."""
    at = steps_of(view)
    if len(at) < 2:
        return
    with st.container(border=True, gap="xsmall"):
        st.markdown("**Two checkpoints compared**")
        left, right = st.columns(2)
        a = left.selectbox("From", at, index=0, format_func=steps, key="checkpoint-a")
        b = right.selectbox("To", at, index=len(at) - 1, format_func=steps, key="checkpoint-b")
        if a is None or b is None:
            return
        found = {title: of_pair(view, name, a, b) for title, name in IN_PAIRS.items()}
        for column, (title, value) in zip(st.columns(len(IN_PAIRS)), found.items(), strict=True):
            if value is not None:
                column.metric(title, number(value))
        _spectra(view, a, b)
        rows = compared(view, a, b)
        config = {name: st.column_config.NumberColumn(format="%.4g") for name in rows.columns[1:4]}
        st.dataframe(rows, hide_index=True, key="checkpoints-pair", column_config=config, height=300)


def _spectra(view: RunView, a: int, b: int) -> None:
    if DENSITY not in view.latest:
        return
    spectra = view.spectra(DENSITY)
    rows = spectra.loc[spectra["step"].isin([a, b])]
    if rows.empty:
        st.caption("The spectrum was not measured at these steps.")
        return
    largest = view.measured(LARGEST).points if LARGEST in view.latest else None
    figure = spectrum_charts.spectrum_now(
        view.descriptions[DENSITY], rows, largest=largest, revision=f"checkpoints-{view.run.id}-{a}-{b}"
    )
    st.plotly_chart(figure, key="chart-checkpoint-spectra", alt="Spectra of two checkpoints")


show_page("Checkpoints", body)
