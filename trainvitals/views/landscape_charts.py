"""Losses around the weights as charts: curves along one direction, or a plane with contour lines."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trainvitals.schema import Description
from trainvitals.views import palette
from trainvitals.views.charts import HEIGHT, layout
from trainvitals.views.colour_levels import ColourLevels
from trainvitals.views.thinning import spread
from trainvitals.views.value_axis import ValueAxis
from trainvitals.views.words import label, number, steps

MAX_CURVES = 5  # steps whose curves are drawn, the first and the last among them
NUM_CONTOURS = 15
HERE = "the weights"


def landscape(
    description: Description, table: pd.DataFrame, *, directions: str = "", revision: str = ""
) -> go.Figure:
    """Return the last landscape: its curve, with earlier ones fainter, or its plane. θ is marked at the centre.

    Args:
        description: of the losses.
        table: one row per step with `coordinates` (n,) and `losses` (n,) or (n, n); at least one row.
        directions: what the directions are, for the axes.
        revision: plotly keeps the zoom as long as this text is the same and the chart is not mounted anew.
    """
    last = np.asarray(table["losses"].iloc[-1])
    draw = _curves if last.ndim == 1 else _plane
    figure = draw(description, table.loc[[np.shape(losses) == last.shape for losses in table["losses"]]], revision)
    words = f" ({label(directions)})" if directions else ""
    figure.update_layout(height=HEIGHT + 60, hovermode="closest")
    figure.update_xaxes(title={"text": f"along the {'first ' if last.ndim == 2 else ''}direction{words}"})
    if last.ndim == 2:
        figure.update_layout(yaxis={"title": {"text": "along the second direction"}})
    return figure


def _curves(description: Description, table: pd.DataFrame, revision: str) -> go.Figure:
    table = table.iloc[spread(len(table), MAX_CURVES)]
    height = ValueAxis(description.scale, np.concatenate([np.ravel(losses) for losses in table["losses"]]))
    figure = go.Figure()
    for index, (step, coordinates, losses) in enumerate(
        zip(table["step"], table["coordinates"], table["losses"], strict=True)
    ):
        is_last, name = index == len(table) - 1, f"step {steps(step)}"
        colour = palette.LINES[0] if is_last else palette.faint(palette.LINES[0], 0.25 + 0.4 * index / len(table))
        figure.add_scatter(
            x=coordinates, y=height.of(losses), name=name, mode="lines", connectgaps=False,
            line={"color": colour, "width": 2 if is_last else 1.25},
            customdata=[label(f"{name}: {number(loss)}") for loss in losses],
            hovertemplate="%{x:.3g} away, %{customdata}<extra></extra>",
        )  # fmt: skip
        if is_last:
            middle = len(losses) // 2
            _mark(figure, 0.0, height.of(losses[middle : middle + 1])[0], losses[middle], "circle", colour)
    layout(figure, description, None, revision)
    figure.update_layout(yaxis=height.layout, showlegend=len(table) > 1)
    return figure


def _plane(description: Description, table: pd.DataFrame, revision: str) -> go.Figure:
    row = table.iloc[-1]
    losses, coordinates = np.asarray(row["losses"], float), np.asarray(row["coordinates"], float)
    height = ValueAxis(description.scale, losses.ravel())
    colours = ColourLevels(losses, height)
    texts = np.vectorize(lambda v: label(number(v)), otypes=[object])(losses)
    figure = go.Figure()
    figure.add_contour(  # rows of the losses are along the first direction, rows of a contour along y
        x=coordinates, y=coordinates, z=colours.levels.T, customdata=texts.T, ncontours=NUM_CONTOURS,
        connectgaps=False, colorscale=palette.SEQUENTIAL, line={"width": 0.75, "color": "rgba(255,255,255,0.45)"},
        colorbar={"thickness": 10, "title": {"text": label(description.unit, 40), "side": "right"}, **colours.bar},
        hovertemplate="(%{x:.3g}, %{y:.3g}): %{customdata}<extra></extra>", name=f"step {steps(float(row['step']))}",
    )  # fmt: skip
    lost = ~np.isfinite(colours.levels)
    if lost.any():
        rows, columns = np.nonzero(lost)
        figure.add_scatter(
            x=coordinates[rows], y=coordinates[columns], mode="markers", showlegend=False, name="not drawn",
            marker={"symbol": "x", "size": 5, "color": palette.NOT_FINITE}, customdata=texts[lost],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    middle = len(coordinates) // 2
    _mark(figure, 0.0, 0.0, losses[middle, middle], "cross-thin", palette.NOT_FINITE)
    layout(figure, description, None, revision)
    figure.update_layout(showlegend=False, yaxis={"showgrid": False})
    figure.add_annotation(
        x=0, y=1, xref="x domain", yref="y domain", xanchor="left", yanchor="top", showarrow=False,
        text=f"step {steps(float(row['step']))}", font={"size": 11, "color": "white"}, bgcolor="rgba(0,0,0,0.55)",
    )  # fmt: skip
    return figure


def _mark(figure: go.Figure, x: float, y: float, loss: float, symbol: str, colour: str) -> None:
    """Mark the weights, at the centre."""
    figure.add_scatter(
        x=[x], y=[y], mode="markers", showlegend=False, name=HERE,
        marker={"symbol": symbol, "size": 11, "color": colour, "line": {"width": 2.5, "color": colour}},
        customdata=[label(f"{HERE}: {number(float(loss))}")], hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
