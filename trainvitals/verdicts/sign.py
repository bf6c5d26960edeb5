"""A sign: one series held against a level, and from which point on it lastingly stands on the wrong side of it.

A sign is entered when the series stands beyond the level at `patience` points in a row, and left when it stands
short of the laxer `release` as long. Both look back only: what a sign said at a step does not change when points
are added, and noise round the level does not switch it to and fro.

Legend: n points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Evidence
from trainvitals.verdicts import figures
from trainvitals.verdicts.change_point import onset
from trainvitals.verdicts.series import Floats, Ints, Series

ABOVE, BELOW = "above", "below"
_NEARLY = 0.95  # of the extreme that a series keeps
# What is to be seen of a run, where more than one condition is about it.
LOSS_LOST, LOSS_HIGH, LOSS_LEAPT = "the loss lost its progress", "the loss is high", "the loss leapt up"
WEIGHTS_GREW, UNITS_DIED, RANK_FELL = "the weights grew", "units died", "the rank of the features fell"
SYMPTOMS = (LOSS_LOST, LOSS_HIGH, LOSS_LEAPT, WEIGHTS_GREW, UNITS_DIED, RANK_FELL)


@dataclass(frozen=True, eq=False)
class Sign:
    """A series against a level.

    Args:
        series: what is compared, at its own steps.
        threshold: the level, a number or one per point (n,).
        comparison: ABOVE or BELOW, the side that speaks for the condition.
        source: where the level comes from: a paper, or how it was measured.
        words: what it means when it holds, as a clause with its figure as `{value}`, as `{value:share}` in per cent,
            as `{value:part}` with "all" from 1 on,
            or as `{value:points}` in percentage points: "the sharpness is {value} times its threshold". Or a function
            that returns them for the index of the point that is told.
        release: the level short of which it is let go; the threshold itself if left out.
        patience: how many points in a row it takes, to enter and to leave.
        reliability: in (0, 1], how sure this sign alone makes one.
        kind: signs of one kind say the same thing in other ways and count once together; "" is a kind of its own.
        starts: "change", it began where the series began to change; "crossing", where it first stood beyond the
            level: for a level that means something by itself.
        quantity: what is compared, in words, where it is worked out from the metric.
        once: the series keeps the extreme that it has reached: its words are in the past tense,
        and tell of that moment.
        repeats: it says more of a number that a sign before it gives: it counts, and no sentence tells it again.
        raw: where a smoothed series decides, the same as recorded at each point (n,): what a reader finds in the
            table and the chart, and what the sentence gives.
        smoothed: how the series was smoothed, in words: "median of 5 measurements".
        symptom: of `SYMPTOMS`, what it shows.
    """

    series: Series
    threshold: float | Floats
    comparison: str
    source: str
    words: str | Callable[[int], str]
    release: float | Floats | None = None
    patience: int = 3
    reliability: float = 0.7
    kind: str = ""
    starts: str = "change"
    quantity: str = ""
    once: bool = False
    repeats: bool = False
    raw: Floats | None = None
    smoothed: str = ""
    symptom: str = ""

    @cached_property
    def held(self) -> NDArray[np.bool_]:
        """Whether it holds at each point (n,), told from this point and those before."""
        release = self.threshold if self.release is None else self.release
        return latched(self._beyond(self.threshold), ~self._beyond(release), self.patience)

    @property
    def holds(self) -> bool:
        """Whether it holds at the last point."""
        return bool(len(self.series) and self.held[-1])

    @cached_property
    def entered(self) -> int | None:
        """The index of the point at which it was entered for the last time; None if it does not hold."""
        if not self.holds:
            return None
        free = np.flatnonzero(~self.held)
        return int(free[-1]) + 1 if len(free) else 0

    @cached_property
    def since(self) -> int | None:
        """The step at which the change began that made it hold; None if it does not hold."""
        if self.entered is None:
            return None
        if self.starts == "crossing":
            return int(self.series.step[max(0, self.entered - self.patience + 1)])
        return int(self.series.step[onset(self.series.value, self.entered, rising=self.comparison == ABOVE)])

    @property
    def noticed(self) -> int | None:
        """The step at which it was entered for the last time; None if it does not hold."""
        return None if self.entered is None else int(self.series.step[self.entered])

    def held_at(self, steps: Ints) -> NDArray[np.bool_]:
        """Return whether it held at each of `steps` (m,): as its newest point then said, and not before the first."""
        index = np.searchsorted(self.series.step, steps, side="right") - 1
        return (index >= 0) & (self.held[np.maximum(index, 0)] if len(self.series) else False)

    def evidence(self) -> Evidence:
        """Return the newest number beside the level.

        While it holds and the newest number is back short of the level, it is the last one that stood beyond, and the
        sentence says where it is now. Of an extreme that is kept it is the moment at which that was reached.
        """
        at = self._telling()
        value, level = float(self.series.value[at]), float(np.broadcast_to(self.threshold, len(self.series))[at])
        return Evidence(
            metric=self.series.name, step=int(self.series.step[at]), value=value, comparison=self.comparison,
            threshold=level, source=self.source, words=figures.filled(self._words(at), self._shown(at)),
            key=self.series.key, quantity=self._quantity(), holds=self.holds, since=self.since,
            is_past=self.holds and (self.once or at < len(self.series) - 1),
            sentence=self._sentence(at, value, level) if self.holds else "", repeats=self.repeats,
            symptom=self.symptom,
        )  # fmt: skip

    def _telling(self) -> int:
        """Return the index of the point that evidence gives; one whose recorded value is beyond, if there is any."""
        if self.once:  # when nearly all of it was reached: an extreme may creep on for long
            part = np.abs(self.series.value - self.series.value[0])
            return int(np.argmax(part >= _NEARLY * part[-1]))
        beyond = self._beyond(self.threshold)
        if not self.holds or not beyond.any() or beyond[-1]:
            return len(self.series) - 1
        both = beyond & self._beyond(self.threshold, self.raw) if self.raw is not None else beyond
        entered = np.arange(len(beyond)) >= (self.entered or 0)
        return int(np.flatnonzero(both & entered if (both & entered).any() else beyond)[-1])

    def _sentence(self, at: int, value: float, level: float) -> str:
        """Return the words with the level; and where it is now, if it has come back a little."""
        words, shown = self._words(at), self._shown(at)
        kind, quantity = figures.kind_of(words), self.quantity or self.series.name
        if self._short(shown, level):  # the recorded value is back, the smoothed one that decides is not yet
            told = f"{figures.filled(words, shown)}; the {self.smoothed}, {figures.figure(value, kind)}, counts " \
                   f"{self.comparison} {figures.figure(level, kind).removesuffix(' percentage points')}"
        else:
            told = figures.with_level(words, shown, self.comparison, level, quantity)
        if self.once or at == len(self.series) - 1:
            return told
        now, last = figures.figure(self._shown(-1), kind), int(self.series.step[-1])
        return f"{told}; by step {last:,} it has come {'back down' if self.comparison == ABOVE else 'back up'} to {now}"

    def _words(self, at: int) -> str:
        return self.words if isinstance(self.words, str) else self.words(at)

    def _shown(self, at: int) -> float:
        return float((self.series.value if self.raw is None else self.raw)[at])

    def _short(self, shown: float, level: float) -> bool:
        """Return whether the recorded value is not beyond the level."""
        return self.raw is not None and not (shown > level if self.comparison == ABOVE else shown < level)

    def _quantity(self) -> str:
        return f"{self.quantity or self.series.name}, {self.smoothed}" if self.smoothed else self.quantity

    def _beyond(self, level: float | Floats, of: Floats | None = None) -> NDArray[np.bool_]:
        value = self.series.value if of is None else of
        return value > level if self.comparison == ABOVE else value < level


def latched(on: NDArray[np.bool_], off: NDArray[np.bool_], patience: int) -> NDArray[np.bool_]:
    """Return a state that is entered after `patience` points of `on` in a row and left after as many of `off`.

    >>> latched(np.array([0, 1, 1, 0, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0, 1, 1], bool), 2).tolist()
    [False, False, True, True, True, True, False]
    """
    index = np.arange(len(on))
    entered = np.maximum.accumulate(np.where(run_lengths(on) >= patience, index, -1)) if len(on) else index
    left = np.maximum.accumulate(np.where(run_lengths(off) >= patience, index, -1)) if len(on) else index
    return entered > left


def run_lengths(on: NDArray[np.bool_]) -> Ints:
    """Return for each point how many points in a row, it and those before, are True.

    >>> run_lengths(np.array([1, 1, 0, 1], bool)).tolist()
    [1, 2, 0, 1]
    """
    index = np.arange(len(on))
    last_false = np.maximum.accumulate(np.where(on, -1, index)) if len(on) else index
    return index - last_false
