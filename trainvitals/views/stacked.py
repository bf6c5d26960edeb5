"""Several charts as one figure, one below the other, each with its own axes, legend and colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from trainvitals.views.charts import HEIGHT
from trainvitals.views.words import label

ABOVE, BELOW = 58, 46  # pixels of a row for its title and legend, and for its step axis


def titled(title: str, figure: go.Figure) -> go.Figure:
    """Return a chart with its title on top."""
    figure.update_layout(title={"text": label(title), "x": 0, "xref": "paper", "font": {"size": 15}},
                         margin={"t": ABOVE, "b": 8}, height=_height(figure) + ABOVE)  # fmt: skip
    return figure


def stacked(charts: Sequence[tuple[str, go.Figure]]) -> go.Figure:
    """Return charts with their titles as the rows of one figure.

    A chart may use an axis of its own for steps, one for values, and one from 0 to 1 over it (`charts.layout`).
    """
    heights = [_height(chart) for _, chart in charts]
    total = sum(heights) + (ABOVE + BELOW) * len(charts)
    figure = go.Figure()
    top = float(total)
    for row, ((title, chart), height) in enumerate(zip(charts, heights, strict=True)):
        upper, lower = (top - ABOVE) / total, (top - ABOVE - height) / total
        _add_row(figure, chart, row, (lower, upper))
        figure.add_annotation(text=f"<b>{label(title)}</b>", x=0, xref="paper", y=upper, yref="paper", xanchor="left",
                              yanchor="bottom", yshift=26, showarrow=False, font={"size": 14})  # fmt: skip
        top -= ABOVE + height + BELOW
    closest = any(_layout(chart).get("hovermode") == "closest" for _, chart in charts)
    figure.update_layout(height=total, margin={"l": 8, "r": 8, "t": 8, "b": 8},
                         hovermode="closest" if closest else "x unified")  # fmt: skip
    return figure


def _height(chart: go.Figure) -> int:
    return int(_layout(chart).get("height", HEIGHT))


def _layout(chart: go.Figure) -> dict[str, Any]:
    """Return a layout as plain data: what is not set is not there."""
    return chart["layout"].to_plotly_json()


def _add_row(figure: go.Figure, chart: go.Figure, row: int, domain: tuple[float, float]) -> None:
    """Copy a chart's traces, axes, shapes and notes, renamed for the row."""
    steps, values, over = (f"x{row + 1}", f"y{2 * row + 1}", f"y{2 * row + 2}") if row else ("x", "y", "y2")
    names = {"x": steps, "y": values, "y2": over}
    legend, layout = f"legend{row + 1}", _layout(chart)
    traces: Any = chart["data"]
    for trace in traces:
        raw = trace.to_plotly_json()
        raw |= {"xaxis": steps, "yaxis": names[raw.get("yaxis", "y")]}
        if "showlegend" in type(trace)()._valid_props:
            shown = raw.get("showlegend", True) and layout.get("showlegend", True)
            raw |= {"legend": legend, "showlegend": shown}
        if "colorbar" in raw:
            raw["colorbar"] = raw["colorbar"] | {"y": sum(domain) / 2, "len": domain[1] - domain[0]}
        figure.add_trace(raw)
    axes: dict[str, Any] = {name: dict(layout.get(name, {})) for name in ("xaxis", "yaxis", "yaxis2")}
    axes["xaxis"] |= {"anchor": values}
    axes["yaxis"] |= {"anchor": steps, "domain": domain}
    axes["yaxis2"] |= {"anchor": steps, "overlaying": values, "range": [0, 1], "visible": False}
    figure.update_layout({
        f"xaxis{row + 1}": axes["xaxis"], f"yaxis{2 * row + 1}": axes["yaxis"], f"yaxis{2 * row + 2}": axes["yaxis2"],
        legend: {"orientation": "h", "yanchor": "bottom", "y": domain[1], "x": 0, "font": {"size": 11}},
    })  # fmt: skip
    for shape in layout.get("shapes", ()):
        figure.add_shape(_placed(dict(shape), names, steps, values))
    for note in layout.get("annotations", ()):
        figure.add_annotation(_placed(dict(note), names, steps, values))


def _placed(raw: dict[str, Any], names: dict[str, str], steps: str, values: str) -> dict[str, Any]:
    """Return a shape or note with the axes that it refers to renamed; "paper" was the whole chart."""
    for key, whole in (("xref", f"{steps} domain"), ("yref", f"{values} domain")):
        axis, _, rest = str(raw.get(key) or key[0]).partition(" ")
        raw[key] = whole if axis == "paper" else f"{names[axis]} {rest}".strip()
    return raw
