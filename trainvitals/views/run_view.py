"""One run as a page sees it: its metrics by question, and points that are read only when there are new ones.

The page redraws about once a second. A metric is read again only when its last point is a new one,
and then only from that point on; its chart is made again only then. Of a long metric no more points
are read than a chart shows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from trainvitals.schema import Chart, Description, Question, Reading, Scale, Status, Verdict, VerdictState
from trainvitals.views.chart_style import ChartOptions
from trainvitals.views.measured import Measured, no_points, none_missing
from trainvitals.views.thinning import most_points

if TYPE_CHECKING:
    from trainvitals.run import Run

T = TypeVar("T")

LIVE_VERDICT_SECONDS = 3.0  # a live run is judged anew so often at most: every browser shares the judgement

COST_SCALARS = {
    "probe.seconds": Description(
        "probe.seconds", "Time spent measuring", "", "How long the probes took at each step at which they measured.",
        unit="s", scale=Scale.LOG),
    "probe.share": Description(
        "probe.share", "Share of wall time", "", "Time spent measuring, as a share of the wall time since the start.",
        undefined="before the first measurement"),
    "probe.share_of_last_minute": Description(
        "probe.share_of_last_minute", "Share of the last minute", "",
        "Time of the last minute that was spent measuring, as a share of it.",
        undefined="before the first measurement"),
    "probe.interval": Description(
        "probe.interval", "Steps between measurements", "",
        "How many training steps apart the budget lets each metric be measured.",
        unit="steps", chart=Chart.HEATMAP, scale=Scale.LOG, keys="metric"),
    "probe.price": Description(
        "probe.price", "Price of one measurement", "",
        "How long measuring each metric takes, beside what it shares with others.",
        unit="s", chart=Chart.HEATMAP, scale=Scale.LOG, keys="metric"),
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """The points of a metric that have been read, up to its last step, and the token of the last point."""

    step: int
    token: tuple
    table: pd.DataFrame


@dataclass
class RunCache:
    """What has been read and drawn of one run, shared by all browsers that look at it."""

    points: dict[str, Seen] = field(default_factory=dict)
    windows: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    made: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


class RunView:
    """A run during one refresh of a page. Reads are cached by the metric's last point."""

    def __init__(
        self, run: Run, cache: RunCache | None = None, window: tuple[int | None, int | None] = (None, None)
    ) -> None:
        self.run = run
        self.window = window  # steps that charts show
        self.options = ChartOptions()  # how they are drawn
        self.cache = cache or RunCache()

    @cached_property
    def latest(self) -> Mapping[str, tuple[int, Reading]]:
        """The last point of every metric, missing ones too."""
        return self.run.latest()

    @cached_property
    def status(self) -> Status:
        """What the run is doing."""
        return self.run.status

    @cached_property
    def updated(self) -> float:
        """When the run was last heard from, in seconds since the epoch."""
        return self.run.updated

    @cached_property
    def last_step(self) -> int | None:
        """The step of the record that came last."""
        return self.run.last_step

    @cached_property
    def events(self) -> pd.DataFrame:
        """What happened to the run in words: `step`, `time`, `kind`, `message`."""
        return self.run.events()

    @cached_property
    def stored(self) -> dict[str, Description]:
        """The descriptions that the run recorded: its diagnostics', not those of plain logged numbers."""
        return self.run.descriptions

    @cached_property
    def descriptions(self) -> dict[str, Description]:
        """The description of every metric that has a point, those of plain logged numbers made here."""
        return {name: self.stored.get(name) or plain_description(name) for name in self.latest}

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """What is to be said of the run, the worst first."""
        now = int(time.time() / LIVE_VERDICT_SECONDS) if self.status == Status.LIVE else self.run.num_points
        return self.once("verdicts", (self.status, now), self.run.verdicts)

    @property
    def onsets(self) -> tuple[tuple[int, str], ...]:
        """(step, title) of all that is found and began at a step."""
        found = (VerdictState.ALARM, VerdictState.WATCH)
        return tuple((v.since, v.title) for v in self.verdicts if v.since is not None and v.state in found)

    def metrics(self, question: str) -> list[Description]:
        """Return the descriptions of what was measured for one question."""
        return [d for d in self.descriptions.values() if d.question == question]

    def unasked(self) -> list[Description]:
        """Return the descriptions whose question has no page."""
        known = {str(q) for q in Question}
        return [d for d in self.descriptions.values() if d.question not in known and d.name not in COST_SCALARS]

    def has(self, *names: str) -> bool:
        """Whether all these metrics have at least one point."""
        return all(name in self.latest and not self.measured(name).points.empty for name in names)

    def token(self, *names: str) -> tuple:
        """Return what changes when one of these metrics has a new point."""
        return tuple((name, *_seen(*self.latest[name])) for name in names if name in self.latest)

    def points(self, name: str) -> pd.DataFrame:
        """Return the points of a metric; of a long one about as many as a chart shows, spikes among them.

        Only those since the last read are read from the file, until there are twice too many.
        """
        return self._points(name, name, (None, None))

    def _points(self, key: str, name: str, window: tuple[int | None, int | None]) -> pd.DataFrame:
        if name not in self.latest:
            return no_points()
        last, token = self.latest[name][0], self.token(name)
        with self.cache.lock:
            seen = self.cache.points.get(key)
            if seen is not None and seen.token == token:
                return seen.table
            table = self._read(name, seen, window)
            self.cache.points[key] = Seen(last, token, table)
            return table

    def _read(self, name: str, seen: Seen | None, window: tuple[int | None, int | None]) -> pd.DataFrame:
        """Return the points in a window: those that were seen and what has come since, or all anew."""
        max_points = most_points(np.size(self.latest[name][1].value))
        first, last = window[0], None if window[1] is None else window[1] + 1
        if seen is None:
            return self.run.series(name, first, last, max_points)
        # the last step is read again: one step may have several points
        start = min(seen.step, self.latest[name][0])
        start = start if first is None else max(first, start)
        old, new = seen.table.loc[seen.table["step"] < start], self.run.series(name, start, last, max_points)
        table = pd.concat([old, new], ignore_index=True) if len(old) and len(new) else new if len(new) else old
        if np.unique(table["step"].to_numpy(float)).size > 2 * max_points:
            return self.run.series(name, first, last, max_points)
        return table

    def missing(self, name: str) -> pd.DataFrame:
        """Return the missing points of a metric with their reasons."""
        if name not in self.latest:
            return none_missing()
        return self.once(f"missing {name}", self.token(name), lambda: self.run.missing(name))

    def spectra(self, name: str) -> pd.DataFrame:
        """Return the densities of a metric, one row per step."""
        return self._shown(self.once(f"spectra {name}", self.token(name), lambda: self.run.spectra(name)))

    def landscapes(self, name: str) -> pd.DataFrame:
        """Return the losses around the weights of a metric, one row per step."""
        return self._shown(self.once(f"landscapes {name}", self.token(name), lambda: self.run.landscapes(name)))

    def measured(self, name: str) -> Measured:
        """Return the metric with its points, ready to be drawn."""
        return Measured(self.descriptions[name], self._points_shown(name), self._shown(self.missing(name)))

    def _points_shown(self, name: str) -> pd.DataFrame:
        """Return the points of the chosen steps, read for them alone: a part of a long run in all its detail."""
        if self.window == (None, None):
            return self.points(name)
        with self.cache.lock:  # of one window at a time: the one before will not be asked for again
            if self.cache.windows.get(name) != self.window:
                self.cache.windows[name] = self.window
                self.cache.points.pop(f"part of {name}", None)
            return self._shown(self._points(f"part of {name}", name, self.window))

    def _shown(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows inside the chosen steps."""
        first, last = self.window
        if first is not None:
            table = table.loc[table["step"] >= first]
        return table if last is None else table.loc[table["step"] <= last]

    def once(self, what: str, token: Any, make: Callable[[], T]) -> T:
        """Return what `make` gives, made again only when the token has changed."""
        with self.cache.lock:
            seen = self.cache.made.get(what)
            if seen is None or seen[0] != token:
                self.cache.made[what] = seen = (token, make())
            return seen[1]

    @cached_property
    def span(self) -> tuple[float, float]:
        """The steps of the axis that all charts share: the chosen ones, or from 0 to the last step.

        While the run is live the end is rounded up, so that a chart without a new point stays the same.
        """
        end = max([1, self.last_step or 0, *(step for step, _ in self.latest.values())])
        if self.status == Status.LIVE:
            quantum = 10 ** max(len(str(end)) - 2, 0)
            end = -(-end // quantum) * quantum
        first, last = self.window
        return float(first or 0), float(end if last is None else last)


def _seen(step: int, reading: Reading) -> tuple:
    """Return what tells a metric's last point from the one before, at the same step too; NaN equals itself."""
    value = None if reading.value is None else np.asarray(reading.value).tobytes()
    return step, reading.missing, value, reading.seconds


def plain_description(name: str) -> Description:
    """Return the description of a number that the training script logged, or that `watch` adds."""
    if name in COST_SCALARS:
        return COST_SCALARS[name]
    words = name.lower()
    about_fit = any(part in words for part in ("loss", "acc", "error", "perplexity", "ppl"))
    return Description(
        name=name,
        title=name,
        question=Question.OVERFITTING if about_fit else "",
        summary="Logged by the training script under this name.",
        unit="",
    )


def last_value(view: RunView, name: str) -> float | None:
    """Return the last finite value of a metric of one number, or None."""
    values = view.points(name)["value"].to_numpy(float)
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else None
