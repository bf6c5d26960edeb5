"""The density of eigenvalues as charts: over steps, and from the side at the first and the last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trainvitals.schema import Description
from trainvitals.views import palette
from trainvitals.views.charts import HEIGHT, Span, layout
from trainvitals.views.spectrum_cells import SpectrumCells
from trainvitals.views.thinning import MAX_COLUMNS, spread, thin
from trainvitals.views.words import label, number, steps, with_error

SPECTRUM_ROWS = 160
OUTLINE_CELLS = 60  # of a spectrum seen from the side: more show a comb of the peaks that the estimate is made of
MAX_OUTLIERS = 1500  # marks of single eigenvalues over the steps
SPECTRUM_DECADES = 7  # densities lower than the highest by more are drawn as the lowest


def spectrum_over_steps(
    description: Description, spectra: pd.DataFrame, *, outliers: Sequence[pd.DataFrame] = (),
    threshold: pd.DataFrame | None = None, span: Span | None = None, revision: str = "",
) -> go.Figure:  # fmt: skip
    """Return a density over a grid as a waterfall: step × eigenvalue, colour is log₁₀ of the density.

    Args:
        description: of the density.
        spectra: one row per step with `grid` (G,) and `density` (G,).
        outliers: points of eigenvalues that were measured one by one, marked where they lie.
        threshold: points of the stability threshold, drawn as a line as far as it lies on the axis.
        span: steps of the axis.
        revision: plotly keeps the zoom as long as this text is the same and the chart is not mounted anew.
    """
    spectra = spectra.iloc[spread(len(spectra), MAX_COLUMNS)]
    cells = SpectrumCells(list(spectra["grid"]), SPECTRUM_ROWS)
    columns = [cells.highest(grid, density) for grid, density in zip(spectra["grid"], spectra["density"], strict=True)]
    z = np.log10(np.maximum(np.stack(columns, 1), 1e-300))  # (SPECTRUM_ROWS, T)
    top = float(z.max())
    figure = go.Figure()
    figure.add_heatmap(
        x=spectra["step"], y=cells.centres, z=np.maximum(z, top - SPECTRUM_DECADES),
        colorscale=palette.SEQUENTIAL, hovertemplate="step %{x}: log₁₀ density %{z:.2f}<extra></extra>",
        colorbar={"thickness": 10, "title": {"text": "log₁₀ density", "side": "right", "font": {"size": 11}}},
    )  # fmt: skip
    for points in outliers:
        _add_outliers(figure, points, cells)
    if threshold is not None:
        _add_threshold(figure, threshold, cells)
    layout(figure, description, span or (float(spectra["step"].iloc[0]), float(spectra["step"].iloc[-1])), revision)
    figure.update_layout(
        yaxis={"tickvals": cells.tickvals, "ticktext": cells.ticktext, "title": {"text": "eigenvalue"},
               "showgrid": False},
        height=HEIGHT + 60, hovermode="closest",
    )  # fmt: skip
    return figure


def _add_outliers(figure: go.Figure, points: pd.DataFrame, cells: SpectrumCells) -> None:
    points = points.loc[np.isfinite(points["value"].to_numpy(float))]
    points = points.iloc[spread(len(points), MAX_OUTLIERS)]
    places = cells.of(points["value"].to_numpy(float))
    figure.add_scatter(
        x=points["step"], y=places, mode="markers", showlegend=False, name="measured one by one",
        marker={"size": 4, "color": palette.REFERENCE, "line": {"width": 0.5, "color": "white"}},
        customdata=[_eigenvalue_words(row) for row in points.itertuples()],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _eigenvalue_words(row: Any) -> str:
    return label(f"eigenvalue {row.key or 1}: {with_error(row.value, row.error)}, step {steps(row.step)}")


def _add_threshold(figure: go.Figure, points: pd.DataFrame, cells: SpectrumCells) -> None:
    """Draw the part of the threshold that lies on the axis; nothing of one far above all eigenvalues."""
    points = thin(points.loc[np.isfinite(points["value"].to_numpy(float))])
    places = cells.of(points["value"].to_numpy(float))
    room = cells.edges[-1] + 0.15 * (cells.edges[-1] - cells.edges[0])
    if not (places <= room).any():
        return
    figure.add_scatter(
        x=points["step"], y=np.where(places <= room, places, np.nan), mode="lines", showlegend=False,
        name="stability threshold", line={"color": palette.ONSET, "width": 1.5, "dash": "dash"},
        customdata=[label(f"stability threshold {number(value)}") for value in points["value"]],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def spectrum_now(
    description: Description, spectra: pd.DataFrame, *, largest: pd.DataFrame | None = None, revision: str = ""
) -> go.Figure:
    """Return the first and the last measured density over the eigenvalue, the last with its band.

    Seen from the side: each of `OUTLINE_CELLS` cells shows the highest density in it.

    Args:
        description: of the density.
        spectra: one row per step with `grid`, `density` and `error`, each (G,).
        largest: points of the largest eigenvalues, marked at the bottom for both steps.
        revision: plotly keeps the zoom as long as this text is the same and the chart is not mounted anew.
    """
    ends = [_Spectrum.of(spectra.iloc[at]) for at in ((0, -1) if len(spectra) > 1 else (-1,))]
    cells = SpectrumCells([end.grid for end in ends], OUTLINE_CELLS)
    floor = max(float(np.nanmax(end.density)) for end in ends) * 10.0**-SPECTRUM_DECADES
    figure = go.Figure()
    for end in ends:
        colour = palette.line(0 if end is ends[-1] else 1)["color"]
        if end is ends[-1] and end.error is not None:
            _add_spectrum_band(figure, end, end.error, cells, floor, colour)
        _add_outline(figure, end, cells, floor, colour)
        if largest is not None:
            _add_eigenvalues(figure, largest, end.step, cells, colour)
    layout(figure, description, None, revision)
    figure.update_layout(
        xaxis={"tickvals": cells.tickvals, "ticktext": cells.ticktext, "title": {"text": "eigenvalue"}},
        yaxis={"type": "log", "exponentformat": "power", "title": {"text": "density"}},
        height=HEIGHT + 60, showlegend=len(ends) > 1, hovermode="closest",
    )  # fmt: skip
    return figure


@dataclass(frozen=True)
class _Spectrum:
    """One row of the spectra: a density at a step, arrays (G,)."""

    step: int
    grid: np.ndarray
    density: np.ndarray
    error: np.ndarray | None

    @classmethod
    def of(cls, row: Any) -> _Spectrum:
        error = None if row["error"] is None else np.asarray(row["error"], float)
        return cls(int(row["step"]), np.asarray(row["grid"], float), np.asarray(row["density"], float), error)


def _add_outline(figure: go.Figure, spectrum: _Spectrum, cells: SpectrumCells, floor: float, colour: str) -> None:
    """Draw a density as a filled outline that stands on the floor."""
    y, name = cells.highest(spectrum.grid, spectrum.density), f"step {steps(spectrum.step)}"
    figure.add_scatter(
        x=[cells.edges[0], *cells.centres, cells.edges[-1]], y=[floor, *np.maximum(y, floor), floor],
        fill="toself", fillcolor=palette.faint(colour), mode="lines", line={"color": colour, "width": 1.25},
        name=name, hoveron="points", customdata=["", *(label(f"{name}: density {number(v)}") for v in y), ""],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _add_spectrum_band(
    figure: go.Figure, spectrum: _Spectrum, error: np.ndarray, cells: SpectrumCells, floor: float, colour: str
) -> None:
    sides = (spectrum.density + error, spectrum.density - error)
    high, low = (np.maximum(cells.highest(spectrum.grid, side), floor) for side in sides)
    figure.add_scatter(
        x=np.concatenate([cells.centres, cells.centres[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself",
        fillcolor=palette.faint(colour, 0.3), line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False,
        name="± error",
    )  # fmt: skip


def _add_eigenvalues(figure: go.Figure, largest: pd.DataFrame, step: int, cells: SpectrumCells, colour: str) -> None:
    """Mark the largest eigenvalues of a step as ticks at the bottom."""
    found = largest.loc[largest["step"] == step]
    found = found.loc[np.isfinite(found["value"].to_numpy(float))]
    if found.empty:
        return
    values = found["value"].to_numpy(float)
    words = [f"{key or 'largest'} = {with_error(value, error)} at step {steps(step)}"
             for key, value, error in zip(found["key"], values, found["error"], strict=True)]  # fmt: skip
    figure.add_scatter(
        x=cells.of(values), y=np.full(len(values), 0.03), yaxis="y2", mode="markers", showlegend=False,
        name=f"largest eigenvalues, step {steps(step)}",
        marker={"symbol": "line-ns", "size": 12, "line": {"color": colour, "width": 2}},
        customdata=[label(text) for text in words], hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
