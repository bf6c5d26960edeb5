"""One metric of several runs: over each other, or as small multiples on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trainvitals.schema import Description, Scale
from trainvitals.views import palette
from trainvitals.views.chart_options import ChartOptions
from trainvitals.views.charts import DEFAULT, GHOST, HEIGHT, layout, unit_of
from trainvitals.views.smoothing import smoothed
from trainvitals.views.thinning import points_each, thin
from trainvitals.views.value_axis import ValueAxis
from trainvitals.views.words import label, middle_cut, number, steps, with_error

HOVER = "%{fullData.name}: %{customdata}<extra></extra>"
COLUMNS = 5  # of small multiples: at most two rows for ten runs


@dataclass(frozen=True)
class Course:
    """One metric of one run: `points` as in `Run.series` and their places `x` on the shared axis, by step."""

    name: str  # of the run, as the legend says it
    place: int  # among the runs: its colour
    points: pd.DataFrame
    x: np.ndarray


def comparison(
    description: Description, courses: Sequence[Course], title: str, *, side_by_side: bool = False,
    falls: bool = False, revision: str = "", options: ChartOptions = DEFAULT,
) -> go.Figure:  # fmt: skip
    """Return one metric of several runs.

    Args:
        description: of the metric.
        courses: a run each.
        title: of the axis that the runs share.
        side_by_side: a small chart for each run, on the same axes, in place of one for all.
        falls: draw the shared axis from high to low, as for a loss; logarithmic where all of it is above 0.
        revision: as in `charts.lines`.
        options: the reader's.
    """
    thinned = [_thinned(course, points_each(len(courses))) for course in courses]
    values = np.concatenate([course.points["value"].to_numpy(float) for course in thinned] or [np.empty(0)])
    height = ValueAxis(options.scale or description.scale, values)
    has_panels = side_by_side and len(thinned) > 1
    figure = _panels(len(thinned)) if has_panels else go.Figure()
    for i, course in enumerate(thinned):
        row, column = (i // COLUMNS + 1, i % COLUMNS + 1) if has_panels else (None, None)
        for trace in _traces(course, height, options.smoothing, is_alone=row is not None):
            figure.add_trace(trace, row=row, col=column)
    if has_panels:
        _name_panels(figure, thinned, title, unit_of(description), revision)
    else:
        layout(figure, description, None, revision)
        figure.update_layout(xaxis={"title": {"text": label(title)}}, showlegend=True, hovermode="closest")
    figure.update_xaxes(**_shared_axis(thinned, falls))
    return figure.update_yaxes(**height.layout, selector=lambda axis: axis.overlaying is None)


def _thinned(course: Course, max_points: int) -> Course:
    has_place = np.isfinite(course.x)
    rows = course.points.loc[has_place].assign(x=course.x[has_place])
    rows = thin(rows, max_points)
    return Course(course.name, course.place, rows, rows["x"].to_numpy(float))


def _traces(course: Course, height: ValueAxis, share: float, is_alone: bool) -> list[go.Scatter]:
    rows, style = course.points, palette.line(course.place)
    values, at = rows["value"].to_numpy(float), rows["step"].to_numpy(float)
    name = label(middle_cut(course.name, 40))
    words = [f"{label(with_error(v, e))}, step {steps(s)}"
             for v, e, s in zip(values, rows["error"].to_numpy(float), at, strict=True)]  # fmt: skip
    hover = {"customdata": words, "hovertemplate": HOVER}
    plain = go.Scatter(x=course.x, y=height.of(values), name=name, mode="lines", line={**style, "width": 2},
                       connectgaps=False, **hover)  # fmt: skip
    if len(rows) == 1 or (len(rows) <= 60 and share == 0):
        plain.update(mode="lines+markers", marker={"size": 4})
    if share == 0 or len(rows) < 3:
        return [plain]
    plain.update(opacity=GHOST, showlegend=False, line={**style, "width": 1})
    smooth = smoothed(at, values, share * max(float(np.ptp(at)), 1.0))
    words = [f"{label(number(v))} (smoothed), step {steps(s)}" for v, s in zip(smooth, at, strict=True)]
    return [plain, go.Scatter(x=course.x, y=height.of(smooth), name=name, mode="lines", line={**style, "width": 2},
                              customdata=words, hovertemplate=HOVER)]  # fmt: skip


def _panels(num: int) -> go.Figure:
    num_rows = -(-num // COLUMNS)
    shared: Any = "all"  # plotly's own annotation says bool and its documentation more
    return make_subplots(num_rows, min(num, COLUMNS), shared_xaxes=shared, shared_yaxes=shared,
                         horizontal_spacing=0.02, vertical_spacing=0.16 if num_rows > 1 else 0.0)  # fmt: skip


def _name_panels(figure: go.Figure, courses: Sequence[Course], title: str, unit: str, revision: str) -> None:
    num_rows = -(-len(courses) // COLUMNS)
    for i, course in enumerate(courses):
        figure.add_annotation(
            text=label(middle_cut(course.name, 22)), xref=f"x{i + 1 if i else ''} domain", x=0,
            yref=f"y{i + 1 if i else ''} domain", y=1, yanchor="bottom", xanchor="left", showarrow=False,
            font={"size": 11, "color": palette.line(course.place)["color"]},
        )  # fmt: skip
    last = len(courses) - min(len(courses), COLUMNS)
    for i in range(last, len(courses)):
        figure.layout[f"xaxis{i + 1 if i else ''}"].title = {"text": label(title), "font": {"size": 11}}
    for i in range(0, len(courses), COLUMNS):
        figure.layout[f"yaxis{i + 1 if i else ''}"].title = {"text": unit, "font": {"size": 11}}
    figure.update_xaxes(zeroline=False).update_yaxes(zeroline=False, automargin=True)
    figure.update_layout(height=HEIGHT * num_rows, margin={"l": 8, "r": 8, "t": 24, "b": 8}, uirevision=revision,
                         showlegend=False, hovermode="closest")  # fmt: skip


def _shared_axis(courses: Sequence[Course], falls: bool) -> dict:
    if not falls:
        return {}
    every = np.concatenate([course.x for course in courses] or [np.empty(0)])
    return {"autorange": "reversed", **(ValueAxis(Scale.LOG, every).layout if every.size and every.min() > 0 else {})}
