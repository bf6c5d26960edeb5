"""A run at a glance as one small piece of HTML: its state, what is wrong, and a sparkline of each main metric.

Made for places without scripts or a server, a notebook's output above all: SVG in the text's own colour. Everything
from the run is escaped.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Sequence

import numpy as np

from trainvitals.run import Run
from trainvitals.schema import Chart, Description, Status, VerdictState
from trainvitals.views import palette
from trainvitals.views.health import freshness
from trainvitals.views.run_view import COST_SCALARS, RunView
from trainvitals.views.value_axis import ValueAxis
from trainvitals.views.words import clean, number, steps

WIDTH, HEIGHT, MARGIN = 232, 64, 4  # pixels of a sparkline
MAX_TILES = 6
MAX_VERDICTS = 3
FIRST: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Train and held-out loss", ("loss.train", "loss.heldout")), ("", ("accuracy.heldout",)),
    ("", ("stability.ratio",)), ("", ("hessian.trace",)), ("", ("oui",)), ("", ("grad.noise_scale",)), ("", ("nc1",)),
)  # fmt: skip
_COLOURS = {Status.LIVE: "#009E73", Status.STALLED: "#E69F00", Status.CRASHED: "#D55E00", Status.FINISHED: "#8A8F98"}
_ONE_LINE = "opacity: .75; white-space: nowrap; overflow: hidden; text-overflow: ellipsis"
_STATES = {VerdictState.ALARM: "#D55E00", VerdictState.WATCH: "#E69F00"}


def glance(run: Run) -> str:
    """Return the run as HTML: one line of state, the worst verdicts, and at most six sparklines."""
    view = RunView(run)
    tiles = "".join(_tiles(view))
    return (
        '<div style="font: 13px system-ui, sans-serif; max-width: 760px">'
        f"{_head(view)}{_verdicts(view)}"
        f'<div style="display: flex; flex-wrap: wrap; gap: 14px; margin-top: 6px">{tiles}</div></div>'
    )


def _head(view: RunView) -> str:
    words = [freshness(view.status, view.updated, time.time())]
    if view.last_step is not None:
        words.append(f"step {steps(view.last_step)}")
    return (
        f'<div><span style="color: {_COLOURS[view.status]}">●</span> <b>{_text(view.run.name, 60)}</b> · '
        f"{_text(' · '.join(words))}</div>"
    )


def _verdicts(view: RunView) -> str:
    found = [verdict for verdict in view.verdicts if verdict.state in _STATES][:MAX_VERDICTS]
    return "".join(
        f'<div><span style="color: {_STATES[v.state]}">▲</span> {_text(v.title, 60)}'
        f'{"" if v.since is None else f", since step {steps(v.since)}"}</div>'
        for v in found
    )  # fmt: skip


def _tiles(view: RunView) -> Iterator[str]:
    chosen: list[tuple[str, tuple[str, ...]]] = []
    own = [name for name in view.latest if name not in view.stored and name not in COST_SCALARS]  # the user's
    rest = [name for name, d in view.descriptions.items() if d.chart == Chart.LINE and name not in COST_SCALARS]
    seen: set[str] = set()
    for title, names in [FIRST[0], *(("", (name,)) for name in own[:2]), *FIRST[1:], *(("", (n,)) for n in rest)]:
        there = tuple(name for name in names if name not in seen and _is_one_number(view, name))
        if there and len(chosen) < MAX_TILES:
            chosen.append((title, there))
            seen.update(names)
    for title, names in chosen:
        first, *others = names
        yield _tile(view, title if others else view.descriptions[first].title, names)


def _is_one_number(view: RunView, name: str) -> bool:
    if name not in view.latest:
        return False
    points = view.points(name)
    return not points.empty and set(points["key"]) == {""} and bool(np.isfinite(points["value"].to_numpy(float)).any())


def _tile(view: RunView, title: str, names: Sequence[str]) -> str:
    tables = [view.points(name) for name in names]
    lines = [(table["step"].to_numpy(float), table["value"].to_numpy(float)) for table in tables]
    last = " / ".join(
        f'<b style="color: {palette.LINES[i]}">{_text(number(float(values[-1])))}</b>'
        for i, (_, values) in enumerate(lines)
    )
    return (
        f'<div style="width: {WIDTH}px"><div style="{_ONE_LINE}">{_text(title, 60)}</div>'
        f"<div>{last} {_unit(view.descriptions[names[0]])}</div>"
        f"{sparkline(lines, view.descriptions[names[0]].scale)}</div>"
    )


def _unit(description: Description) -> str:
    return "" if description.unit in ("", "1") else _text(description.unit, 24)


def sparkline(lines: Sequence[tuple[np.ndarray, np.ndarray]], scale: str) -> str:
    """Return lines over steps as SVG, on one axis; a line breaks where a value has no place on it.

    Args:
        lines: steps (n,) and values (n,) of each.
        scale: of the value axis.
    """
    axis = ValueAxis(scale, np.concatenate([values for _, values in lines]))
    heights = [np.log10(y) if axis.is_log else y for y in (axis.of(values) for _, values in lines)]
    x_of = _placer(np.concatenate([x for x, _ in lines]), MARGIN, WIDTH - MARGIN)
    y_of = _placer(np.concatenate(heights), HEIGHT - MARGIN, MARGIN)
    paths = "".join(
        f'<path d="{_path(x_of(x), y_of(y))}" fill="none" stroke="{palette.LINES[i % len(palette.LINES)]}" '
        'stroke-width="1.5" stroke-linecap="round"/>'
        for i, ((x, _), y) in enumerate(zip(lines, heights, strict=True))
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
        f'<line x1="0" y1="{HEIGHT - 1}" x2="{WIDTH}" y2="{HEIGHT - 1}" stroke="currentColor" opacity=".25"/>'
        f"{paths}</svg>"
    )


def _placer(values: np.ndarray, low: float, high: float):
    finite = values[np.isfinite(values)]
    first, last = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    width = last - first
    if not width or not np.isfinite(width):  # one value, or more apart than numbers reach
        return lambda v: np.where(np.isfinite(v), (low + high) / 2, np.nan)
    return lambda v: low + (v - first) / width * (high - low)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Return an SVG path; a point alone is drawn as a dot: a line of no length with round ends."""
    pieces, is_down = [], False
    for a, b in zip(x, y, strict=True):
        if not np.isfinite(b):
            is_down = False
            continue
        pieces.append(f"L{a:.1f} {b:.1f}" if is_down else f"M{a:.1f} {b:.1f}h0")
        is_down = True
    return "".join(pieces)


def _text(text: object, limit: int = 200) -> str:
    return html.escape(clean(text, limit))
