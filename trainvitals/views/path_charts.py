"""The path through the checkpoints as charts: its plane, lines between checkpoints, all pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trainvitals.schema import Description, Scale
from trainvitals.views import palette
from trainvitals.views.charts import HEIGHT, layout
from trainvitals.views.colour_levels import ColourLevels
from trainvitals.views.thinning import spread
from trainvitals.views.value_axis import ValueAxis
from trainvitals.views.words import label, number, steps

PLANE_HEIGHT = HEIGHT + 170
NUM_CONTOURS = 15
MAX_NAMED = 12  # steps written beside the path, and ticks of a matrix


def plane(
    description: Description, coordinates: pd.DataFrame, shares: Sequence[float], surface: Mapping[str, Any] | None,
    *, revision: str = "",
) -> go.Figure:  # fmt: skip
    """Return the path on its first two components, on the loss surface where there is one.

    Args:
        description: of the coordinates.
        coordinates: indexed by step, a column a component; the first two are drawn (zeros for a second that the
            path does not have).
        shares: of the variance, a number a component.
        surface: `x` (n,), `y` (m,) and `losses` (m, n), or None.
        revision: plotly keeps the zoom as long as this text is the same.
    """
    x = coordinates.iloc[:, 0].to_numpy(float)
    y = coordinates.iloc[:, 1].to_numpy(float) if coordinates.shape[1] > 1 else np.zeros(len(x))
    at = [int(step) for step in coordinates.index]
    figure = go.Figure()
    if surface is not None:
        _add_surface(figure, surface)
    colour = "white" if surface is not None else palette.LINES[0]
    named = set(spread(len(at), MAX_NAMED).tolist())
    figure.add_scatter(
        x=x, y=y, mode="lines+markers+text", name="path", showlegend=False,
        line={"color": colour, "width": 2}, textposition="top center", textfont={"color": colour, "size": 10},
        marker={"size": 7, "color": at, "colorscale": "Oranges", "line": {"color": colour, "width": 1}},
        text=[steps(step) if i in named else "" for i, step in enumerate(at)],
        customdata=[label(f"step {steps(step)}") for step in at], hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    layout(figure, description, None, revision)
    figure.update_layout(
        height=PLANE_HEIGHT, hovermode="closest", showlegend=False,
        xaxis={"title": {"text": _component(1, shares)}}, yaxis={"title": {"text": _component(2, shares)}},
    )  # fmt: skip
    return figure


def _add_surface(figure: go.Figure, surface: Mapping[str, Any]) -> None:
    losses = np.asarray(surface["losses"], float)
    colours = ColourLevels(losses, ValueAxis(Scale.LOG, losses.ravel()))
    texts = np.vectorize(lambda v: label(number(float(v))), otypes=[object])(losses)
    figure.add_contour(
        x=surface["x"], y=surface["y"], z=colours.levels, customdata=texts, ncontours=NUM_CONTOURS, connectgaps=False,
        colorscale=palette.SEQUENTIAL, line={"width": 0.75, "color": "rgba(255,255,255,0.45)"}, name="loss",
        colorbar={"thickness": 10, "title": {"text": "loss", "side": "right"}, **colours.bar},
        hovertemplate="loss %{customdata}<extra></extra>",
    )  # fmt: skip


def _component(index: int, shares: Sequence[float]) -> str:
    share = f" ({100 * shares[index - 1]:.0f} % of the variance)" if index <= len(shares) else ""
    return f"component {index}{share}"


def between(
    description: Description, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, revision: str = ""
) -> go.Figure:
    """Return losses on straight lines between checkpoints, each from 0 to 1, with the chord that a barrier rises from.

    Args:
        description: of the losses.
        curves: (coordinates (n,), losses (n,)) by name.
        revision: plotly keeps the zoom as long as this text is the same.
    """
    figure = go.Figure()
    for index, (name, (shares, losses)) in enumerate(curves.items()):
        style = palette.line(index)
        figure.add_scatter(
            x=shares, y=losses, mode="lines+markers", name=label(name, 60), line={**style, "width": 2},
            marker={"size": 5}, customdata=[label(f"{name}: {number(float(v))}") for v in losses],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[shares[0], shares[-1]], y=[losses[0], losses[-1]], mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": style["color"], "width": 1, "dash": "dot"}, name=label(f"{name}, straight", 80),
        )  # fmt: skip
    layout(figure, description, None, revision)
    figure.update_layout(
        xaxis={"title": {"text": "share of the way"}}, hovermode="closest", showlegend=len(curves) > 1,
        height=HEIGHT + 60,
    )  # fmt: skip
    return figure


def pairs(description: Description, at: Sequence[int], values: np.ndarray, *, revision: str = "") -> go.Figure:
    """Return a number for each pair of checkpoints as a matrix with both axes in their order."""
    names = [steps(step) for step in at]
    texts = [[f"steps {a} and {b}: {number(float(values[i, j]))}" for j, b in enumerate(names)]
             for i, a in enumerate(names)]  # fmt: skip
    figure = go.Figure()
    unit = "" if description.unit == "1" else label(description.unit, 40)
    figure.add_heatmap(
        z=values, customdata=[[label(text) for text in row] for row in texts], hoverongaps=False,
        colorscale=palette.SEQUENTIAL, hovertemplate="%{customdata}<extra></extra>",
        colorbar={"thickness": 10, "title": {"text": unit, "side": "right"}},
    )  # fmt: skip
    layout(figure, description, None, revision)
    ticks = spread(len(names), MAX_NAMED).tolist()
    axis = {"tickvals": ticks, "ticktext": [names[i] for i in ticks], "title": {"text": "step"}, "showgrid": False}
    figure.update_layout(xaxis=axis, yaxis={**axis, "autorange": "reversed"}, height=HEIGHT + 110, hovermode="closest")
    return figure
