"""Classes beside each other at one step: on a plane, with the samples around them, and pair by pair.

Legend: C classes, n samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from trainvitals.schema import Description, Reading
from trainvitals.views import palette
from trainvitals.views.charts import TALL, layout
from trainvitals.views.words import label, number, steps

SYMBOLS = ("circle", "square", "triangle-up")  # after the colours are used up
MAX_NAMED = 30  # classes with their name beside them; all have it on hover
MAX_NUMBERS = 12  # classes of a matrix whose cells show their number


def class_plane(description: Description, reading: Reading, step: int, *, revision: str = "") -> go.Figure:
    """Return the class means on their plane, the samples around them, and the classifier's rows.

    Args:
        description: of the metric.
        reading: value (C, 2); of its details `x`, `y` and `labels` (n,), `shares` (2,), `rows_x` and `rows_y` (C,) are
            drawn where they are what they say.
        step: at which it was measured.
        revision: as in `charts.lines`.
    """
    means = np.asarray(reading.value, float)
    if means.ndim != 2 or means.shape[1] != 2:
        raise ValueError(f"expected class means (C, 2) in class_plane(), got the shape {means.shape}")
    names = [str(key) for key in reading.keys] or [str(c) for c in range(len(means))]
    figure = go.Figure()
    _add_samples(figure, reading.details, names)
    _add_rows(figure, reading.details, means, names)
    figure.add_scatter(
        x=means[:, 0], y=means[:, 1], mode="markers+text" if len(means) <= MAX_NAMED else "markers", name="class means",
        text=[label(name, 20) for name in names], textposition="top center", textfont={"size": 11},
        marker={"size": 10, "color": [_colour(c) for c in range(len(means))], "symbol": "diamond",
                "line": {"width": 1, "color": palette.REFERENCE}},
        customdata=[label(f"mean of class {name}: ({number(x, 3)}, {number(y, 3)})")
                    for name, (x, y) in zip(names, means, strict=True)],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    layout(figure, description, None, revision)
    titles = _axis_titles(reading.details)
    figure.update_layout(
        height=TALL, hovermode="closest", showlegend=True,
        xaxis={"title": {"text": titles[0]}}, yaxis={"title": {"text": titles[1]}, "scaleanchor": "x"},
    )  # fmt: skip
    return _said(figure, step)


def _add_samples(figure: go.Figure, details: Any, names: list[str]) -> None:
    x, y, labels = (_list(details, name) for name in ("x", "y", "labels"))
    if not len(x) or not x.shape == y.shape == labels.shape:
        return
    classes = [int(v) if np.isfinite(v) and 0 <= v < len(names) else 0 for v in labels]
    figure.add_scatter(
        x=x, y=y, mode="markers", name="samples", opacity=0.55,
        marker={"size": 5, "color": [_colour(c) for c in classes],
                "symbol": [SYMBOLS[c // len(palette.LINES) % len(SYMBOLS)] for c in classes]},
        customdata=[label(f"a sample of class {names[c]}") for c in classes],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _add_rows(figure: go.Figure, details: Any, means: np.ndarray, names: list[str]) -> None:
    """Draw the classifier's rows as rays from the middle."""
    ends = _list(details, "rows_x"), _list(details, "rows_y")
    if any(end.shape != means.shape[:1] for end in ends):
        return
    x, y, words = [], [], []
    for name, a, b in zip(names, *ends, strict=True):
        x += [0.0, a, None]
        y += [0.0, b, None]
        words += [label(f"row of the classifier for class {name}")] * 3
    figure.add_scatter(x=x, y=y, mode="lines", name="classifier's rows", customdata=words,
                       line={"color": palette.REFERENCE, "width": 1.5},
                       hovertemplate="%{customdata}<extra></extra>")  # fmt: skip


def _list(details: Any, name: str) -> np.ndarray:
    """Return a list of numbers from the details, empty where there is none: a run file may hold anything."""
    try:
        return np.atleast_1d(np.asarray(details.get(name, ()), float))
    except (TypeError, ValueError):
        return np.empty(0)


def _axis_titles(details: Any) -> tuple[str, str]:
    shares = _list(details, "shares")
    if shares.shape != (2,) or not np.isfinite(shares).all():
        return "first axis", "second axis"
    return tuple(f"{which} axis: {100 * share:.0f} % of the means' spread"
                 for which, share in zip(("first", "second"), shares, strict=True))  # type: ignore[return-value]


def _colour(c: int) -> str:
    return palette.LINES[c % len(palette.LINES)]


def cosines_of(reading: Reading) -> np.ndarray | None:
    """Return the cosines of all pairs (C, C), NaN on the diagonal; None where a reading has none.

    >>> cosines_of(Reading(value=[0.5, 0.5], keys=("a", "b"), details={"pairs": [0.5]})).tolist()
    [[nan, 0.5], [0.5, nan]]
    """
    pairs, num = _list(reading.details, "pairs"), len(reading.keys)
    if num < 2 or pairs.shape != (num * (num - 1) // 2,):
        return None
    cosines = np.full((num, num), np.nan)
    rows, columns = np.triu_indices(num, 1)
    cosines[rows, columns] = cosines[columns, rows] = pairs
    return cosines


def class_matrix(description: Description, reading: Reading, step: int, *, revision: str = "") -> go.Figure:
    """Return the cosines between all pairs of classes: `pairs` of the reading's details, with the classes as keys.

    Raises:
        ValueError: if the details hold no such pairs.
    """
    cosines = cosines_of(reading)
    if cosines is None:
        raise ValueError(f"expected cosines of all pairs in class_matrix(), got none in {description.name!r} at {step}")
    names = [label(key, 20) for key in reading.keys]
    places = np.arange(len(names))
    figure = go.Figure()
    figure.add_heatmap(
        x=places, y=places, z=cosines, zmin=-1, zmax=1, zmid=0, colorscale=palette.DIVERGING,
        text=[["" if np.isnan(v) else f"{v:.2f}".replace("-", "−") for v in row] for row in cosines], hoverongaps=False,
        texttemplate="%{text}" if len(names) <= MAX_NUMBERS else None, textfont={"size": 10},
        customdata=[[label(f"{a} and {b}: cosine {number(v, 3)}") for b, v in zip(reading.keys, row, strict=True)]
                    for a, row in zip(reading.keys, cosines, strict=True)],
        hovertemplate="%{customdata}<extra></extra>",
        colorbar={"thickness": 10, "title": {"text": "cosine", "side": "right", "font": {"size": 11}}},
    )  # fmt: skip
    layout(figure, description, None, revision)
    every = max(1, -(-len(names) // MAX_NAMED))
    ticks = {"tickvals": places[::every], "ticktext": names[::every], "showgrid": False}
    figure.update_layout(
        height=TALL, hovermode="closest", showlegend=False,
        xaxis={**ticks, "title": {"text": label(description.keys or "class")}, "constrain": "domain"},
        yaxis={**ticks, "title": {"text": label(description.keys or "class")}, "autorange": "reversed"},
    )  # fmt: skip
    return _said(figure, step)


def _said(figure: go.Figure, step: int) -> go.Figure:
    """Write the step of the picture above its corner."""
    figure.update_layout(margin={"t": 24})
    return figure.add_annotation(x=1, y=1, xref="paper", yref="paper", xanchor="right", yanchor="bottom",
                                 text=f"step {steps(step)}", showarrow=False, font={"size": 11})  # fmt: skip
