"""From verdicts and labels to figures: recall, false alarms, onset, delay; for verdicts and naive rules alike.

An answer is what a rule says of one condition on one run: whether it fires, since when, and when it was noticed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from verdict_bank.setting import FIRED, INFORMATIONAL
from verdict_bank.training import Entry


@dataclass(frozen=True)
class Answer:
    """What is said of one condition on one run; state "unknown" was not checked."""

    state: str
    since: int | None = None
    noticed: int | None = None


@dataclass(frozen=True)
class Score:
    """The figures of one condition (or of all) over some runs."""

    num_expected: int = 0
    num_found: int = 0  # of the expected
    num_unknown: int = 0  # of the expected
    num_placed: int = 0  # of those found whose onset is labelled
    num_inside: int = 0  # since within the window
    delays: tuple[float, ...] = ()  # (noticed − last step of the window) / steps of the run, of those found
    num_checked: int = 0  # on healthy runs
    num_false: int = 0  # of these
    num_alike: int = 0  # look-alikes checked
    num_alike_false: int = 0

    @property
    def recall(self) -> float:
        """Share of the expected that was found; NaN without any."""
        return self.num_found / self.num_expected if self.num_expected else math.nan

    @property
    def inside(self) -> float:
        """Share of onsets inside the labelled window; NaN without any."""
        return self.num_inside / self.num_placed if self.num_placed else math.nan

    @property
    def false_share(self) -> float:
        """Share of the conditions checked on healthy runs that fired; NaN without any."""
        return self.num_false / self.num_checked if self.num_checked else math.nan

    @property
    def delay(self) -> float:
        """Median delay as a share of the run: below 0 it was noticed before the window closed; NaN without any."""
        return statistics.median(self.delays) if self.delays else math.nan

    def __add__(self, other: Score) -> Score:
        mine, theirs = vars(self), vars(other)
        return Score(**{name: mine[name] + theirs[name] for name in mine})


def score(condition: str, entry: Entry, answer: Answer) -> Score:
    """Return the figures of one answer.

    On a healthy run every condition is checked that was measured, informational ones and those left unjudged aside;
    of a look-alike those that it names. Of faulty runs what is not labelled is not judged.
    """
    expected, fired = entry.labels.get(condition), answer.state in FIRED
    if expected is not None:
        found = answer.state in expected.states
        window = expected.onset if found else None
        inside = window is not None and answer.since is not None and window[0] <= answer.since <= window[1]
        noticed = window is not None and answer.noticed is not None
        return Score(
            num_expected=1,
            num_found=int(found),
            num_unknown=int(answer.state == "unknown"),
            num_placed=int(window is not None),
            num_inside=int(inside),
            delays=((answer.noticed - window[1]) / entry.num_steps,) if noticed else (),
        )
    if answer.state == "unknown":
        return Score()
    if condition in entry.quiet:
        return Score(num_alike=1, num_alike_false=int(fired))
    if entry.is_healthy and condition not in entry.unjudged and condition not in INFORMATIONAL:
        return Score(num_checked=1, num_false=int(fired))
    return Score()


def scores(entries: Iterable[Entry], answers: Mapping[str, Mapping[str, Answer]]) -> dict[str, Score]:
    """Return the figures by condition.

    Args:
        entries: of the bank.
        answers: by the path of the run, then by condition.
    """
    found: dict[str, Score] = {}
    for entry in entries:
        for condition, answer in answers[entry.path].items():
            found[condition] = found.get(condition, Score()) + score(condition, entry, answer)
    return dict(sorted(found.items()))


def total(parts: Iterable[Score]) -> Score:
    """Return the sum."""
    return sum(parts, Score())


def wilson(num: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); (0, 1) of nothing.

    >>> [round(x, 2) for x in wilson(9, 10)]
    [0.6, 0.98]
    """
    if not of:
        return 0.0, 1.0
    z, p = 1.96, num / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def agreement(entries: Sequence[Entry], answers: Mapping[str, Mapping[str, Answer]]) -> tuple[int, int]:
    """Return how many expected conditions got the same state at every seed of a setting, and of how many."""
    states: dict[tuple[str, str], set[str]] = {}
    seeds: dict[tuple[str, str], int] = {}
    for entry in entries:
        for condition in entry.labels:
            if condition in answers[entry.path]:
                states.setdefault((entry.setting, condition), set()).add(answers[entry.path][condition].state)
                seeds[entry.setting, condition] = seeds.get((entry.setting, condition), 0) + 1
    several = [key for key, num in seeds.items() if num > 1]
    return sum(len(states[key]) == 1 for key in several), len(several)
