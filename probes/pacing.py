"""How often each diagnostic is worth measuring: periods that share one rate of spending by value for cost.

The rule. The last value of a metric goes stale. Taken for a random walk whose square moves by v a second, it is off
by v T / 2 on average, in relative squares, when it is measured every T seconds; measuring it costs c / T of wall
time. The sum of v T / 2 at a given spending is least where T = √(2 λ c / v) for all, with one λ: the last second
spent brings every metric equally much. This is the square-root rule of stock-keeping (Harris 1913, How Many Parts to
Make at Once), λ the multiplier of the common budget.

What diagnostics share (a forward pass, one Lanczos run) is paid once by all that are measured at that step: a family
has a price A beside each member's own c. That is joint replenishment; its relaxed optimum is Jackson, Maxwell and
Muckstadt 1985 (The Joint Replenishment Problem with a Powers-of-Two Restriction, section 2): in the order of c / v,
members join a common period √(2 λ (A + Σ c) / Σ v) as long as their own would be shorter; the others go by their own.

Periods are then rounded to powers of two of a base, which costs at most 6 % (same paper, theorem 3) and makes them
nest, so that those who could share a pass meet. Present periods stay as long as they can be paid, would not spend
much less than could be spent, and none is more than an octave and a quarter from its ideal; then each that is within
three quarters of an octave of its ideal stays. So small changes of costs move nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BISECTIONS = 14  # of 60 octaves: to less than a hundredth of one, and periods move in whole ones
_OCTAVES = 30.0
AT_LONGEST = 0.8  # of the share may go into what comes as seldom as allowed: the rest is shared out by value for cost
_OVER = 1.05  # the share by which present periods may be too dear: the ledger holds the rest
_BETTER = 1.25  # times as much that new periods would spend: below, the present ones stay
_FAR = 1.25  # octaves of a present period from its ideal: beyond, all are chosen anew
_SLACK = 0.25  # octaves by which the present period may be longer than the longest
_STAY = 0.75  # octaves between the ideal period and the present one below which the present one stays


@dataclass(frozen=True)
class Item:
    """One diagnostic, as far as spending goes."""

    family: str
    own: float  # seconds of one measurement beside what the family shares
    value: float  # relative squared change per second, times its weight
    base: float  # seconds: periods are this times powers of two
    shortest: float  # seconds
    present: float | None = None  # the period that it has now


def spending(periods: Mapping[str, float], items: Mapping[str, Item], shared: Mapping[str, float]) -> float:
    """Return the seconds that measuring at these periods takes of each second.

    >>> items = {"a": Item("f", 0.1, 1, 1, 1), "b": Item("f", 0.2, 1, 1, 1)}
    >>> round(spending({"a": 1.0, "b": 2.0}, items, {"f": 0.5}), 6)  # 0.1 + 0.2/2, and 0.5 at the pace of a
    0.7
    """
    rate = sum(items[name].own / period for name, period in periods.items())
    paces: dict[str, float] = {}
    for name, period in periods.items():
        family = items[name].family
        paces[family] = min(period, paces.get(family, math.inf))
    return rate + sum(shared.get(family, 0.0) / pace for family, pace in paces.items())


def relaxed(items: Mapping[str, Item], shared: Mapping[str, float]) -> dict[str, float]:
    """Return the ideal periods at λ = 1/2; at another they are √(2λ) times as long.

    >>> items = {"cheap": Item("f", 0.0, 1, 1, 1), "dear": Item("f", 0.09, 1, 1, 1)}
    >>> relaxed(items, {"f": 0.04}) == {"cheap": 0.2, "dear": 0.3}
    True
    """
    found: dict[str, float] = {}
    families: dict[str, list[str]] = {}
    for name, item in items.items():
        families.setdefault(item.family, []).append(name)
    for family, names in families.items():
        found |= _of_family({name: items[name] for name in names}, shared.get(family, 0.0))
    return found


def _of_family(items: Mapping[str, Item], shared: float) -> dict[str, float]:
    order = sorted(items, key=lambda name: items[name].own / items[name].value)
    cost, value, joined = shared, 0.0, 0
    for name in order:
        item = items[name]
        if joined and item.own / item.value >= cost / value:
            break
        cost, value, joined = cost + item.own, value + item.value, joined + 1
    common = math.sqrt(cost / value)
    own = {name: math.sqrt(items[name].own / items[name].value) for name in order[joined:]}
    return dict.fromkeys(order[:joined], common) | own


def paced(
    items: Mapping[str, Item], shared: Mapping[str, float], share: float, longest: float
) -> tuple[dict[str, float], float]:
    """Return periods in seconds that spend at most `share`, and by what factor `longest` had to give way.

    Args:
        items: what is measured.
        shared: seconds of what each family shares.
        share: seconds to spend in each second.
        longest: no period is longer, if that can be paid; a present one may be, by a quarter of an octave.

    >>> items = {name: Item(name, cost, 1, 1, 1) for name, cost in {"cheap": 0.01, "dear": 0.16}.items()}
    >>> paced(items, {}, share=0.05, longest=100.0)
    ({'cheap': 1.0, 'dear': 4.0}, 1.0)
    """
    problem = _Problem(items, shared)

    def at_longest(octaves: float) -> bool:
        return problem.spending(problem.periods(_OCTAVES, longest * 2.0**octaves)) <= AT_LONGEST * share

    stretch = 0.0 if at_longest(0.0) else _least(at_longest, 0.0)
    longest *= 2.0**stretch
    octaves = _least(lambda octaves: problem.spending(problem.periods(octaves, longest)) <= share, -_OCTAVES)
    found = problem.periods(octaves, longest)
    if problem.may_stay(found, octaves, longest, share):
        found = problem.present
    return dict(zip(items, found.tolist(), strict=True)), 2.0**stretch


def _least(fits: Callable[[float], bool], low: float) -> float:
    """Return where between `low` and 30 octaves `fits` begins to hold."""
    high = _OCTAVES
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


class _Problem:
    """The same in arrays, for it is solved many times a run."""

    def __init__(self, items: Mapping[str, Item], shared: Mapping[str, float]) -> None:
        families = {family: index for index, family in enumerate(dict.fromkeys(i.family for i in items.values()))}
        self._own = np.array([item.own for item in items.values()])
        self._base = np.array([item.base for item in items.values()])
        self._shortest = np.array([item.shortest for item in items.values()])
        self.present = np.array([item.present or math.nan for item in items.values()])
        self._family = np.array([families[item.family] for item in items.values()])
        self._shared = np.array([shared.get(family, 0.0) for family in families])
        ideal = relaxed(items, shared)
        self._ideal = np.maximum(np.array([ideal[name] for name in items]), 1e-12)

    def spending(self, periods: NDArray) -> float:
        """Return seconds a second: `spending` above."""
        paces = np.full(len(self._shared), math.inf)
        np.minimum.at(paces, self._family, periods)
        return float((self._own / periods).sum() + (self._shared / paces).sum())

    def may_stay(self, found: NDArray, octaves: float, longest: float, share: float) -> bool:
        """Tell whether the present periods will do: they can be paid, and new ones would not be much better."""
        if np.isnan(self.present).any() or (self.present < self._shortest * (1 - 1e-9)).any():
            return False
        ideal = np.clip(self._ideal * 2.0**octaves, self._shortest, np.maximum(longest, self._shortest))
        now = self.spending(self.present)
        unlike = np.abs(np.log2(ideal / self.present))
        return bool(now <= _OVER * share and self.spending(found) <= _BETTER * now and (unlike <= _FAR).all())

    def periods(self, octaves: float, longest: float) -> NDArray:
        """Return the rounded periods where the ideal ones are longer by so many octaves."""
        longest_each = np.maximum(longest, self._shortest)
        ideal = np.clip(self._ideal * 2.0**octaves, self._shortest, longest_each)
        most = np.floor(np.log2(longest_each / self._base) + 1e-9)
        rounded = self._base * 2.0 ** np.minimum(np.round(np.log2(ideal / self._base)), most)
        rounded = np.maximum(rounded, self._shortest)
        with np.errstate(invalid="ignore"):
            stays = (self.present >= self._shortest * (1 - 1e-9)) & (self.present <= longest_each * 2.0**_SLACK)
            stays &= np.abs(np.log2(ideal / self.present)) <= _STAY
        return np.where(stays, self.present, rounded)


def median(values: Iterable[float]) -> float:
    """Return the upper median.

    >>> median([3, 1, 2])
    2
    """
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
