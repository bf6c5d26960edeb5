"""The pictures of verdicts: the first evidence of what is found, and of a healthy run what carries it. Nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from trainvitals.schema import Chart, Evidence, ReferenceLine, Verdict
from trainvitals.views import charts, palette
from trainvitals.views.measured import POINT_COLUMNS, Measured
from trainvitals.views.run_view import RunView
from trainvitals.views.words import label, middle_cut, number, steps

HEIGHT = 210  # pixels: a verdict's words stand beside it
MAX_KEYS = 3  # more are drawn as their largest, median and smallest
# What says little without the other, and how both are called together.
PAIRS: Mapping[str, tuple[str, str]] = {
    "loss.heldout": ("loss.train", "Loss"),
    "accuracy.heldout": ("accuracy.train", "Accuracy"),
}
_HEALTHY = (  # (title, (metric, name of its line), …), of which the first three are shown that were measured
    ("Loss", (("loss.train", "train"), ("loss.heldout", "held-out"))),
    ("Sharpness and its threshold", (("stability.sharpness", "sharpness"),
                                                        ("stability.threshold", "threshold"))),
    ("Accuracy", (("accuracy.train", "train"), ("accuracy.heldout", "held-out"))),
    ("Dead units", (("units.dead", "worst layer"),)),
    ("Update over weights", (("update.ratio", "median tensor"),)),
)  # fmt: skip
MAX_HEALTHY = 3
MAX_NAMED = 4  # steps in a note


@dataclass(frozen=True)
class Picture:
    """A chart and what it shows."""

    title: str
    figure: go.Figure
    note: str = ""  # what is to be seen on it, in one sentence


def picture(view: RunView, verdict: Verdict) -> Picture | None:
    """Return the chart of the first evidence that can be drawn, with the onset; None if there is none."""
    drawable = [e for e in verdict.evidence if e.metric in view.latest and not view.points(e.metric).empty
                and view.descriptions[e.metric].chart not in (Chart.WATERFALL, Chart.LANDSCAPE)]  # fmt: skip
    if not drawable:
        return None
    first = drawable[0]
    token = view.token(first.metric, PAIRS.get(first.metric, ("", ""))[0])
    return view.once(f"picture {verdict.condition}", (verdict, token, view.span, view.window),
                     lambda: evidence_picture(view, verdict, first))  # fmt: skip


def evidence_picture(view: RunView, verdict: Verdict, evidence: Evidence) -> Picture:
    """Return the chart of one piece of evidence: its metric, or one key of it, the level, and the onset."""
    description = view.descriptions[evidence.metric]
    title, other = _plainly(description.title), PAIRS.get(evidence.metric, ("", ""))[0]
    if other in view.latest:
        parts = [_named(view.measured(other), "train"), _named(view.measured(evidence.metric), "held-out")]
        title = f"{PAIRS[evidence.metric][1]}, train and held-out samples"
    else:
        parts = _lines(view.measured(evidence.metric), evidence.key)
        title += f": {_key(description.keys, evidence.key)}" if evidence.key else ""
    began = f"began: step {steps(verdict.since)}" if verdict.since else "began: at the start"
    marks = [] if verdict.since is None else [(verdict.since, began)]
    levels = _levels(view.measured(evidence.metric), evidence)
    figure = charts.lines(parts, references=levels, marks=marks, span=view.span, revision=verdict.condition)
    return Picture(title, _compact(figure))


def healthy_pictures(view: RunView) -> list[Picture]:
    """Return up to three charts that a healthy run can be seen by, of what was measured."""
    found: list[Picture] = []
    for title, lines in _HEALTHY:
        if len(found) < MAX_HEALTHY and all(n in view.latest and not view.points(n).empty for n, _ in lines):
            token = (view.token(*(name for name, _ in lines)), view.span, view.window)
            found.append(view.once(f"healthy {title}", token, partial(_healthy_picture, view, title, lines)))
    return found


def _healthy_picture(view: RunView, title: str, lines: Sequence[tuple[str, str]]) -> Picture:
    parts = [_named(_largest_or_median(view.measured(name)), words) for name, words in lines]
    figure = charts.lines(parts, references=(), span=view.span, revision=f"healthy {title}")
    return Picture(title, _compact(figure), _note(parts, view.points("loss.train")))


def _note(parts: Sequence[Measured], loss: pd.DataFrame) -> str:
    """Return the newest numbers in words; of a sharpness how often it was below its threshold."""
    last = [part.finite().iloc[-1] for part in parts if len(part.finite())]
    if len(last) < len(parts):
        return ""
    if [part.name for part in parts] == ["stability.sharpness", "stability.threshold"]:
        both = parts[0].finite().merge(parts[1].finite(), on="step", suffixes=("", "_level"))
        return _beside_threshold(both, loss)
    numbers = [f"{number(float(row['value']), 3)} {part.description.title}" for row, part in zip(last, parts,
                                                                                                 strict=True)]
    return f"At step {steps(max(float(row['step']) for row in last))}: {', '.join(numbers)}."


def _beside_threshold(both: pd.DataFrame, loss: pd.DataFrame) -> str:
    """Return how often a sharpness was below its threshold, where and how far above it, and if the loss fell on."""
    ratio = both["value"].to_numpy(float) / both["value_level"].to_numpy(float)
    above = np.flatnonzero(~(ratio < 1))
    said = f"Below the threshold at {len(both) - len(above)} of {len(both)} measurements"
    if not len(above):
        return f"{said}."
    at = [steps(step) for step in both["step"].to_numpy()[above[:MAX_NAMED]]]
    named = f"step{'s' * (len(above) > 1)} {', '.join(at)}{', …' * (len(above) > MAX_NAMED)}"
    far = number(float(ratio[above].max()), 2)
    back = "; below it again at the next measurement" if not np.any(np.diff(above) == 1) and ratio[-1] < 1 else ""
    then = _fell_on(both["step"].to_numpy(float), above, loss)
    return f"{said}; above it at {named}, up to {far} times as high{back}.{then}"


def _fell_on(measured: np.ndarray, above: np.ndarray, loss: pd.DataFrame) -> str:
    """Return that the train loss was lower at the measurement after each of those above, if it was so."""
    steps_, values = loss["step"].to_numpy(float), loss["value"].to_numpy(float)
    after = above[above + 1 < len(measured)]
    at = np.searchsorted(steps_, measured, side="right") - 1
    if len(after) < len(above) or at.min(initial=len(values)) < 0:
        return ""
    return " The train loss went on falling." if np.all(values[at[after + 1]] < values[at[after]]) else ""


def _named(measured: Measured, name: str) -> Measured:
    """Return a metric whose line has a short name, no levels, and no ticks for what is missing: a picture is small."""
    description = replace(measured.description, title=name, references=())
    return replace(measured, missing=measured.missing.iloc[:0], description=description)


def _lines(measured: Measured, key: str) -> list[Measured]:
    """Return the lines to draw: one key beside the median of all, or what lies between the keys' extremes."""
    keys, kind = measured.keys(), measured.description.keys or "key"
    if key in keys:
        own = measured.points.loc[measured.points["key"] == key]
        parts = [_named(replace(measured, points=_without_key(own)), label(_key(kind, key)))]
        return [*parts, _over_keys(measured, "median", f"median {kind}")] if len(keys) >= MAX_KEYS else parts
    if len(keys) <= MAX_KEYS:
        return [replace(measured, description=replace(measured.description, references=()))]
    return [_over_keys(measured, how, f"{name} {kind}")
            for how, name in (("max", "largest"), ("median", "median"), ("min", "smallest"))]  # fmt: skip


def _plainly(title: str) -> str:
    """Return a title without the word for the fixed samples that a metric is measured on.

    >>> _plainly("Loss per class on the held-out probe")
    'Loss per class, held-out samples'
    """
    for where in ("train", "held-out"):
        title = title.replace(f" on the {where} probe", f", {where} samples")
    return title


def _key(kind: str, key: str) -> str:
    """Return a key as it is called: "class 3", "relu2"."""
    return f"{kind} {key}" if key.isdigit() else middle_cut(key)


def _without_key(points: pd.DataFrame) -> pd.DataFrame:
    return points.assign(key="")


def _over_keys(measured: Measured, how: str, name: str) -> Measured:
    """Return the median, largest or smallest over the keys at each step."""
    grouped = measured.points.groupby("step", as_index=False)
    points = grouped.agg({"time": "first", "value": how}).assign(key="", error=np.nan, converged=None, seconds=np.nan)
    return _named(replace(measured, points=points[POINT_COLUMNS]), name)


def _largest_or_median(measured: Measured) -> Measured:
    if measured.keys() in ([], [""]):
        return measured
    return _over_keys(measured, "max" if measured.name == "units.dead" else "median", measured.description.title)


def _levels(measured: Measured, evidence: Evidence) -> Sequence[ReferenceLine]:
    """Return the level as a line, if what is held against it is the metric itself and nothing made from it."""
    then = measured.points.loc[measured.points["step"] == evidence.step, "value"].to_numpy(float)
    if evidence.quantity or not np.isclose(then, evidence.value, rtol=1e-6).any():
        return ()
    return (ReferenceLine(f"level {number(evidence.threshold, 3)}", evidence.threshold, evidence.source),)


def _compact(figure: go.Figure) -> go.Figure:
    """Make it small: the legend over the plot, onsets under it, and an axis that says when it is logarithmic."""
    axis = figure.layout.yaxis  # pyright: ignore[reportAttributeAccessIssue]
    is_log = axis.type == "log" or axis.ticktext is not None
    unit = axis.title.text or ""
    words = ", ".join(part for part in (unit, "log scale" if is_log else "") if part)
    figure.update_annotations(patch={"y": 1, "yref": "paper", "yanchor": "bottom", "yshift": -1,
                                     "font": {"size": 11, "color": palette.ONSET}}, selector=_is_onset)  # fmt: skip
    figure.update_shapes(line={"color": palette.ONSET, "width": 1.5, "dash": "dot"})
    top = 44 if figure.layout.showlegend else 22  # pyright: ignore[reportAttributeAccessIssue]
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.12, "x": 0, "font": {"size": 11}, "itemwidth": 30}
    _tell_apart(figure)
    figure.for_each_trace(lambda line: line.update(error_y={"visible": False}), selector={"type": "scatter"})
    figure.update_layout(yaxis={"title": {"text": words}})
    return figure.update_layout(height=HEIGHT, legend=legend, margin={"t": top})


def _tell_apart(figure: go.Figure) -> None:
    """Dash every line but the first, and leave out its points: one on top of another leaves both to be seen."""
    lines = [t for t in figure.data if t.type == "scatter" and "lines" in (t.mode or "") and t.showlegend is not False]
    for trace in lines[1:]:
        if not str(trace.name).startswith("level"):
            trace.update(line={"dash": "dash"})
            if trace.x is not None and len(trace.x) > 1:
                trace.update(mode="lines")


def _is_onset(annotation: go.layout.Annotation) -> bool:
    return str(annotation.text).startswith("began")
