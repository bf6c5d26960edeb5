"""Lines and heatmaps: descriptions and tables in, plotly figures out. Spectra are in `spectrum_charts.py`.

Every text that comes from a run goes through `words.label`. A point that cannot be drawn where it
belongs is still shown: missing points as ticks at the bottom with their reason, NaN as a cross at the
bottom, infinities at the edge where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trainvitals.schema import Chart, Description, ReferenceLine
from trainvitals.views import palette
from trainvitals.views.chart_style import ChartOptions
from trainvitals.views.colour_levels import ColourLevels
from trainvitals.views.measured import Measured
from trainvitals.views.smoothing import smoothed
from trainvitals.views.thinning import MAX_TICKS, key_by_step, spread, thin
from trainvitals.views.value_axis import ValueAxis
from trainvitals.views.words import label, middle_cut, number, with_error

TALL = 310  # pixels: of what lies beside a plane or a matrix
HEIGHT = 250  # pixels: two rows of cards and the summary fit on 720
ROW_HEIGHT = 20
MAX_NAMED_ROWS = 40  # of a heatmap; with more, every so many have their name beside them, all have it on hover
TICK_OFFSET = 0.1  # rows
MAX_LINES = 12  # more keys are drawn as a heatmap
MARKER_POINTS = 60  # shorter lines show their points
GHOST = 0.35  # opacity of the measured line behind the smoothed one

DEFAULT = ChartOptions()
Span = tuple[float, float]  # first and last step of the axis that all charts of a page share


def draw(
    measured: Measured, *, span: Span | None = None, revision: str = "", options: ChartOptions = DEFAULT
) -> go.Figure:
    """Return the chart that the metric's description names; lines for a kind that is not known here."""
    kind = measured.description.chart
    many = len(measured.keys()) > MAX_LINES
    if kind == Chart.WATERFALL:
        raise ValueError(f"expected points of a number or a vector for draw(), got the density {measured.name!r}; "
                         "use spectrum_over_steps() with Run.spectra()")  # fmt: skip
    if kind == Chart.LANDSCAPE:
        raise ValueError(f"expected points of a number or a vector for draw(), got the landscape {measured.name!r}; "
                         "use landscape() with Run.landscapes()")  # fmt: skip
    if kind == Chart.PLANE:
        raise ValueError(f"expected points of a number or a vector for draw(), got the plane {measured.name!r}; "
                         "use class_charts.class_plane() with its reading")  # fmt: skip
    if kind == Chart.HEATMAP or many:
        return heatmap(measured, span=span, revision=revision)
    return lines([measured], span=span, revision=revision, options=options)


def lines(
    parts: Sequence[Measured],
    *,
    scale: str | None = None,
    references: Iterable[ReferenceLine] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    short: Mapping[str, str] | None = None,
    height: int = HEIGHT,
    span: Span | None = None,
    revision: str = "",
    options: ChartOptions = DEFAULT,
) -> go.Figure:
    """Return one or several metrics over steps, on one value axis.

    Args:
        parts: the metrics; scalars give one line each, vectors one per key.
        scale: of the value axis; that of the first description by default.
        references: levels with their source; those of all descriptions by default.
        marks: (step, text) of vertical lines.
        short: for the legend, in place of the title, by the metric's name.
        height: in pixels.
        span: steps of the axis.
        revision: plotly keeps the zoom as long as this text is the same and the chart is not mounted anew.
        options: the reader's: a smoothed line over the measured one, another scale.
    """
    scale = options.scale or scale or parts[0].description.scale
    if references is None:
        references = dict.fromkeys(line for part in parts for line in part.description.references)
    references = list(references)
    axis = _heights(parts, scale, references)
    figure = go.Figure()
    for reference in references:
        _add_reference(figure, reference, span or _span(parts), axis, _free_side(parts, reference.value))
    span = span or _span(parts)
    width = options.smoothing * (span[1] - span[0])
    traces = [(part, key, rows) for part in parts for key, rows in part.by_key().items()]
    for index, (part, key, rows) in enumerate(traces):
        name = _name(part, key, len(parts), short or {})
        _add_line(figure, name, rows, part.missing, index, axis, len(traces) == 1, width)
    for part in parts:
        _add_missing(figure, part)
    for step, text in marks:
        if not span[0] <= step <= span[1]:
            continue
        side = "right" if step > sum(span) / 2 else "left"  # of the text: it stays inside the chart
        figure.add_vline(x=step, line={"color": palette.REFERENCE, "width": 1, "dash": "dot"}, annotation={
            "text": label(text), "font": {"size": 11}, "yanchor": "top", "xanchor": side})  # fmt: skip
    layout(figure, parts[0].description, span, revision)
    figure.update_layout(showlegend=len(traces) > 1, hovermode="x unified", yaxis=axis.layout, height=height)
    return figure


def with_onsets(figure: go.Figure, onsets: Iterable[tuple[int, str]], span: Span) -> go.Figure:
    """Mark the steps at which conditions began: a thin line, its name on hover of the mark on top."""
    by_step: dict[int, list[str]] = {}
    for step, title in onsets:
        if span[0] <= step <= span[1]:
            by_step.setdefault(step, []).append(f"{label(title, 60)}, since step {step:,}")
    for step, words in by_step.items():
        figure.add_vline(x=step, line={"color": palette.ONSET, "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=step, y=1, yref="paper", yanchor="bottom", yshift=-4, text="▾", showarrow=False,
            font={"size": 13, "color": palette.ONSET}, hovertext="<br>".join(words), captureevents=True,
        )  # fmt: skip
    return figure


def _heights(parts: Sequence[Measured], scale: str, references: Sequence[ReferenceLine]) -> ValueAxis:
    levels = [v for line in references for v in (line.value, line.upper) if v is not None]
    columns = [part.points["value"].to_numpy(float) for part in parts]
    return ValueAxis(scale, np.concatenate([*columns, np.array(levels, float)]))


def _add_line(
    figure: go.Figure, name: str, rows: pd.DataFrame, missing: pd.DataFrame, index: int, height: ValueAxis,
    alone: bool, width: float,
) -> None:  # fmt: skip
    rows = thin(rows)
    style, text = palette.line(index), [_hover(row) for row in rows.itertuples()]
    y = height.of(rows["value"].to_numpy(float))
    errors = rows["error"].to_numpy(float)
    has_error = bool(np.isfinite(errors).any())
    if alone and has_error:
        _add_band(figure, rows, errors, style["color"], height)
    x, y_gaps, text = _with_gaps(rows["step"].to_numpy(float), y, text, missing)
    if width > 0 and len(rows) > 2:
        _add_smoothed(figure, name, rows, missing, style, height, width, x, y_gaps, text)
        _add_off_axis(figure, name, rows, style["color"], height)
        return
    unsure = _unsure(x, rows)
    figure.add_scatter(
        x=x, y=y_gaps, name=name, customdata=text, line={**style, "width": 2},
        mode="lines+markers" if len(rows) <= MARKER_POINTS else "lines",
        marker={"size": 5, "symbol": ["circle-open" if flag else "circle" for flag in unsure]}
        if len(rows) <= MARKER_POINTS else None,
        error_y=_bars(rows, errors, len(x), height) if has_error and not alone else None,
        hovertemplate="%{customdata}", connectgaps=False,
    )  # fmt: skip
    _add_off_axis(figure, name, rows, style["color"], height)


def _add_smoothed(
    figure: go.Figure, name: str, rows: pd.DataFrame, missing: pd.DataFrame, style: dict, height: ValueAxis,
    width: float, x: np.ndarray, y: np.ndarray, text: list[str],
) -> None:  # fmt: skip
    """Draw the smoothed line, and the measured one as its ghost."""
    figure.add_scatter(x=x, y=y, name=f"{name}, measured", customdata=text, line={**style, "width": 1}, mode="lines",
                       opacity=GHOST, showlegend=False, hovertemplate="%{customdata}", connectgaps=False)  # fmt: skip
    steps = rows["step"].to_numpy(float)
    values = smoothed(steps, rows["value"].to_numpy(float), width)
    words = [f"{label(number(value))} (smoothed)" for value in values]
    x, y, words = _with_gaps(steps, height.of(values), words, missing)
    figure.add_scatter(x=x, y=y, name=name, customdata=words, line={**style, "width": 2}, mode="lines",
                       hovertemplate="%{customdata}", connectgaps=False)  # fmt: skip


def _hover(row) -> str:
    flag = " (not converged)" if row.converged is not None and row.converged == 0 else ""
    return label(with_error(row.value, row.error) + flag)


def _unsure(x: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Which drawn points did not converge."""
    flags = rows["converged"].astype(object)
    return np.isin(x, rows.loc[flags.notna() & (flags == 0), "step"].to_numpy(float))


def _with_gaps(
    x: np.ndarray, y: np.ndarray, text: list[str], missing: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Break the line where a point is missing: no line is drawn over what was not measured."""
    holes = np.setdiff1d(missing["step"].to_numpy(float), x)
    if not holes.size:
        return x, y, text
    holes = np.unique(holes[spread(len(holes), MAX_TICKS)])
    order = np.argsort(np.concatenate([x, holes]), kind="stable")
    texts = [*text, *[""] * len(holes)]
    return (
        np.concatenate([x, holes])[order],
        np.concatenate([y, np.full(len(holes), np.nan)])[order],
        [texts[i] for i in order],
    )


def _add_band(figure: go.Figure, rows: pd.DataFrame, errors: np.ndarray, colour: str, height: ValueAxis) -> None:
    """Draw value ± error as a band of its own pieces, so that it breaks where the line does."""
    values, x = rows["value"].to_numpy(float), rows["step"].to_numpy(float)
    errors = np.where(np.isfinite(errors), errors, 0.0)
    low, high = height.clipped(values - errors), height.clipped(values + errors)
    drawn = np.isfinite(low) & np.isfinite(high)
    if drawn.sum() < 2:
        return
    figure.add_scatter(
        x=np.concatenate([x[drawn], x[drawn][::-1]]), y=np.concatenate([high[drawn], low[drawn][::-1]]),
        fill="toself", fillcolor=palette.faint(colour), line={"width": 0}, mode="lines",
        hoverinfo="skip", showlegend=False, name="± error",
    )  # fmt: skip


def _bars(rows: pd.DataFrame, errors: np.ndarray, num_drawn: int, height: ValueAxis) -> dict | None:
    if num_drawn != len(rows):  # a line with gaps has other positions
        return None
    values = rows["value"].to_numpy(float)
    errors = np.where(np.isfinite(errors), errors, 0.0)
    here = height.of(values)
    return {"type": "data", "array": height.clipped(values + errors) - here, "thickness": 1, "width": 2,
            "arrayminus": here - height.clipped(values - errors), "symmetric": False}  # fmt: skip


def _add_off_axis(figure: go.Figure, name: str, rows: pd.DataFrame, colour: str, height: ValueAxis) -> None:
    """Mark values that have no place on the axis: NaN, infinities, and numbers ≤ 0 on a logarithmic one."""
    values = rows["value"].to_numpy(float)
    lost = ~np.isfinite(height.of(values))
    if not lost.any():
        return
    odd = rows.loc[lost].iloc[spread(int(lost.sum()), MAX_TICKS)]
    values = odd["value"].to_numpy(float)
    finite = np.isfinite(values)
    symbols = np.select([values == np.inf, finite], ["triangle-up", "triangle-down-open"], "x")
    figure.add_scatter(
        x=odd["step"], y=np.where(values == np.inf, 0.97, 0.07), yaxis="y2", mode="markers", showlegend=False,
        name=f"{name}, off the axis",
        marker={"symbol": symbols, "size": 8, "color": np.where(finite, colour, palette.NOT_FINITE)},
        customdata=[f"{name}: {label(number(v))}" for v in odd["value"]], hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _add_missing(figure: go.Figure, part: Measured) -> None:
    if part.missing.empty:
        return
    rows = part.missing.iloc[spread(len(part.missing), MAX_TICKS)]
    title = label(part.description.title, 60)
    figure.add_scatter(
        x=rows["step"], y=np.full(len(rows), 0.025), yaxis="y2", mode="markers", showlegend=False,
        name=f"{title}, missing", marker={"symbol": "line-ns-open", "size": 9, "color": palette.MISSING},
        customdata=[f"{title} is missing: {label(reason)}" for reason in rows["reason"]],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _free_side(parts: Sequence[Measured], level: float) -> int:
    """Return 0 (left) or 1 (right): where the first metric is farther from the level, its label has room."""
    values = parts[0].finite()["value"].to_numpy(float)
    return int(not values.size or abs(values[-1] - level) >= abs(values[0] - level))


def _add_reference(figure: go.Figure, reference: ReferenceLine, span: Span, height: ValueAxis, side: int) -> None:
    """Draw a published level, or a band between two, with its label; the source is in the hover text."""
    first, last = span
    low = float(height.of(np.array([reference.value]))[0])
    if not np.isfinite(low):  # a level of 0 has no place on a logarithmic axis
        return
    words, hover = label(reference.label, 60), label(f"{reference.label}: {reference.source}")
    if reference.upper is not None:
        high = float(height.of(np.array([reference.upper]))[0])
        figure.add_scatter(x=[first, last, last, first], y=[low, low, high, high], fill="toself", mode="lines",
                           fillcolor=palette.faint(palette.REFERENCE, 0.18), line={"width": 0}, name=words,
                           hoverinfo="skip", showlegend=False)  # fmt: skip
        low = high
    figure.add_scatter(
        x=[first, (first + last) / 2, last], y=[low] * 3, mode="lines", name=words, showlegend=False,
        line={"color": palette.REFERENCE, "width": 1 if reference.upper is None else 0, "dash": "dash"},
        customdata=[hover] * 3, hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    figure.add_annotation(
        x=side, xref="x domain", xanchor="right" if side else "left",
        y=np.log10(low) if height.is_log else low, yanchor="bottom", text=words, hovertext=hover,
        showarrow=False, font={"size": 11, "color": palette.REFERENCE},
    )  # fmt: skip


def heatmap(
    measured: Measured, *, centre: float | None = None, marked: Collection[str] = (), span: Span | None = None,
    revision: str = "",
) -> go.Figure:  # fmt: skip
    """Return key × step with the value as colour.

    Args:
        measured: one row per step and key.
        centre: the value in the middle of two colours, 1 for growth; one colour scale by default.
        marked: keys with a ▲ before their name.
        span: steps of the axis.
        revision: plotly keeps the zoom as long as this text is the same and the chart is not mounted anew.
    """
    keys, x, z, known = key_by_step(measured)
    height = ValueAxis(measured.description.scale, z.ravel())
    colours = ColourLevels(z, height)
    names = _row_names(keys)
    figure = go.Figure()
    figure.add_heatmap(
        x=x, y=names, z=colours.levels.astype(np.float32), customdata=z.astype(np.float32), hoverongaps=False,
        hovertemplate="%{y}<br>step %{x}: %{customdata:.4~g}<extra></extra>",
        **_colour_scale(colours, height, measured.description, centre),
    )  # fmt: skip
    _mark_cells(figure, names, x, z, known & ~np.isfinite(colours.levels))
    _add_missing(figure, measured)
    layout(figure, measured.description, span or _span([measured]), revision)
    num_named = len(keys) if len(keys) <= MAX_NAMED_ROWS else MAX_NAMED_ROWS // 2  # samples by the hundred
    named = range(0, len(keys), math.ceil(len(keys) / max(num_named, 1)) or 1)
    # a tick lies beside its row's middle: on it, plotly would show the cut name on hover, not the whole
    figure.update_layout(
        height=max(HEIGHT, 90 + ROW_HEIGHT * num_named),
        yaxis={"type": "category", "tickvals": [i + TICK_OFFSET for i in named],
               "ticktext": [f"{'▲ ' if keys[i] in marked else ''}{label(middle_cut(keys[i]))}" for i in named],
               "autorange": "reversed", "title": None, "showgrid": False},
        hovermode="closest", showlegend=False,
    )  # fmt: skip
    return figure


def _row_names(keys: Sequence[str]) -> list[str]:
    """Return the keys as rows of a category axis: no two of them may be one text."""
    names, seen = [], set()
    for index, key in enumerate(keys):
        name = label(key)
        names.append(f"{name} ({index})" if name in seen else name)
        seen.add(name)
    return names


def _colour_scale(
    colours: ColourLevels, height: ValueAxis, description: Description, centre: float | None
) -> dict:
    title = {"text": unit_of(description), "side": "right", "font": {"size": 11}}
    scale: dict = {"colorbar": {"thickness": 10, "title": title, **colours.bar}, "colorscale": palette.SEQUENTIAL}
    finite = colours.finite()
    if centre is not None and finite.size:
        middle = np.log10(centre) if height.is_log else float(height.of(np.array([centre]))[0])
        reach = max(float(np.abs(finite - middle).max()), 1e-9)
        scale |= {"colorscale": palette.DIVERGING, "zmid": middle, "zmin": middle - reach, "zmax": middle + reach}
    return scale


def _mark_cells(figure: go.Figure, names: list[str], x: np.ndarray, z: np.ndarray, lost: np.ndarray) -> None:
    """Mark cells that were measured and have no colour: NaN, infinities, and numbers below 0 on a log scale."""
    rows, columns = np.nonzero(lost)
    if not rows.size:
        return
    finite = np.isfinite(z[rows, columns])
    figure.add_scatter(
        x=x[columns], y=[names[r] for r in rows], mode="markers", showlegend=False, name="not drawn",
        marker={"symbol": np.where(finite, "circle-open", "x"), "size": 6,
                "color": np.where(finite, palette.REFERENCE, palette.NOT_FINITE)},
        customdata=[f"{names[r]}: {label(number(z[r, c]))}" for r, c in zip(rows, columns, strict=True)],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def layout(figure: go.Figure, description: Description, span: Span | None, revision: str) -> None:
    """Give a figure what all charts share: size, axes, and the steps that it spans."""
    margin = {"l": 8, "r": 8, "t": 8, "b": 8}
    figure.update_layout(
        height=HEIGHT, margin=margin, uirevision=revision or description.name,
        xaxis={"title": {"text": "step", "standoff": 12}, "automargin": True, "zeroline": False},
        yaxis={"title": {"text": unit_of(description), "standoff": 12}, "automargin": True, "zeroline": False},
        yaxis2={"overlaying": "y", "range": [0, 1], "fixedrange": True, "visible": False},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "title": None, "font": {"size": 11}},
    )  # fmt: skip
    if span is not None:  # not by a range: plotly gives up the reader's zoom when the range it came with changes
        figure.add_scatter(x=list(span), y=[0, 0], yaxis="y2", mode="markers", marker={"opacity": 0}, name="span",
                           hoverinfo="skip", showlegend=False)  # fmt: skip


def unit_of(description: Description) -> str:
    """Return the unit as an axis title; a number without a unit needs none."""
    return "" if description.unit == "1" else label(description.unit, 40)


def _name(part: Measured, key: str, num_parts: int, short: Mapping[str, str]) -> str:
    title = label(short.get(part.name, part.description.title), 60)
    if not key:
        return title
    words = label(middle_cut(f"{part.description.keys} {key}" if key.isdigit() else key))
    return words if num_parts == 1 else f"{title}: {words}"


def _span(parts: Sequence[Measured]) -> Span:
    found = np.concatenate([table["step"].to_numpy(float) for p in parts for table in (p.points, p.missing)])
    return (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)


