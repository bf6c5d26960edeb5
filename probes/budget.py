"""The price of watching: a share of wall time, spent so that each second of it tells as much as it can.

Every diagnostic gets a price, its own seconds beside what its family shares with others, found in the first steps
and followed ever after, and a value, how fast it changes. `pacing` makes of both how many steps apart each is to be
measured; `ledger` sees to it that no measurement is made that the share of wall time does not pay, over the whole
run and over the last minute. In the first minute most of its share may be spent at once on finding prices.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from trainvitals.probes.ledger import MINUTE_SECONDS, Ledger
from trainvitals.probes.pacing import AT_LONGEST, Item, median, paced

LONGEST_SECONDS = 12.0  # between two points of a metric, where that can be paid: 25 in five minutes
_SHORTEST_SECONDS = 6.0  # an interval of a diagnostic's own is shortened to this, in steps that take long
_LENT = 0.7  # of the first minute's share may go into prices that are not known yet; the rest is for what is cheap
_REPLAN_SECONDS = 5.0
_PLANNING = 0.02  # of the budget may go into planning
_MEMORY = 0.5  # of costs: probes get dearer or cheaper as spectra change
_CHANGE_MEMORY = 0.7  # of rates of change, which scatter more
_GOAL_MEMORY = 0.8  # of the share to plan with: it sways with what has just been bought
_MOST_UNLIKE = 16.0  # values are held within this factor of their median: no metric is for nothing, none is all
_WARN_SECONDS = 60.0  # a metric with a point less often than this is too dear for its budget


def parse_share(budget: str | float) -> float:
    """Return the share of wall time that "5%" or 0.05 stands for.

    Raises:
        ValueError: if it is not a share above 0 and at most 1.

    >>> parse_share("5%"), parse_share(0.2)
    (0.05, 0.2)
    """
    try:
        share = float(budget.removesuffix("%")) / 100 if isinstance(budget, str) and "%" in budget else float(budget)
    except (TypeError, ValueError):
        share = -1.0
    if isinstance(budget, bool) or not 0 < share <= 1:
        raise ValueError(
            f"expected a share of wall time such as '5%' or 0.05, got {budget!r} in budget=; "
            "budget=None turns the budget off and follows the schedule exactly"
        )
    return share


@dataclass(frozen=True)
class Asked:
    """What the budget is told of a diagnostic beforehand."""

    family: str  # those that share their dearest work have one name
    interval: int | None = None  # steps: it is measured at multiples; None: whenever its schedule says
    is_free: bool = False  # the interval is the diagnostic's own: in slow training it may be shortened
    weight: float = 1.0  # of its changes: more where a verdict reads it
    num_passes: float = 1.0  # it may take of its own, in forward passes: a guess until it is measured
    num_shared: float = 1.0  # that its family may share
    is_dear: bool = False  # not measured before its guessed price is there


@dataclass
class _Known:
    own: float  # seconds
    measured_at: float  # by the clock
    change: float | None = None  # relative squares a second


class Budget:
    """Decides what of all that is due is measured now.

    Args:
        share: of wall time, 0 < share ≤ 1.
        asked: what is measured, by name.
        now: the clock at the start, in seconds.
    """

    def __init__(self, share: float, asked: Mapping[str, Asked], now: float) -> None:
        self.share = share
        self.ledger = Ledger(share, now)
        self.intervals = {name: a.interval for name, a in asked.items() if a.interval is not None}  # steps, now
        self.warning: str | None = None  # that the share is too small, once that is known
        self._asked = dict(asked)
        self._known: dict[str, _Known] = {}
        self._shared: dict[str, float] = {}  # seconds by family
        self._pass_seconds = 0.0
        self._step_seconds = 0.0
        self._mark = (0, now, 0.0)  # step, clock and total when steps were last timed
        self._next_plan = now
        self._goal: float | None = None
        self._middle = 1.0  # rate of change of the median metric
        self._has_warned = False

    # Deciding -----------------------------------------------------------------------------------

    def chosen(self, waiting: Collection[str], now: float) -> list[str]:
        """Return what of all that waits to measure now.

        What is not dear is always measured once. What is dear follows one at a time, the cheapest guess first.
        Then comes what has most to tell for its price: a relative change squared, by value and age.
        """
        taken = [name for name in waiting if name not in self._known and not self._asked[name].is_dear]
        if taken and not self._pass_seconds:  # the passes of the first measurement are the measure of all guesses
            return taken
        cost, families = 0.0, set[str]()
        for name in taken:
            cost += self._price(name, families)
        new = [name for name in waiting if name not in self._known and name not in taken]
        new.sort(key=lambda name: (self._own(name) + self._common(name), name))
        for name in self._together(new):
            price = cost + self._price(name, set(families))
            is_early = self.ledger.elapsed(now) < MINUTE_SECONDS
            lent = price + self.ledger.total <= _LENT * self.share * MINUTE_SECONDS
            if self.ledger.can_pay(price, now) and (lent or not is_early):
                self._price(name, families)
                taken, cost = [*taken, name], price
        known = [name for name in waiting if name in self._known]
        for name in sorted(known, key=lambda name: -self._worth(name, now)):
            price = cost + self._price(name, set(families))
            if self.ledger.can_pay(price, now):
                self._price(name, families)
                taken, cost = [*taken, name], price
        return taken

    def _together(self, new: list[str]) -> list[str]:
        """Return the first, and of its family those that are a smaller part of the price than what all share."""
        if not new:
            return []
        family = self._asked[new[0]].family
        common = self._common(new[0])
        return [
            name
            for name in new
            if name == new[0] or (self._asked[name].family == family and self._own(name) < common)
        ]  # fmt: skip

    def can_pay(self, names: Iterable[str], now: float) -> bool:
        """Tell whether all of these could be measured at their known prices."""
        families = set[str]()
        return self.ledger.can_pay(sum(self._price(name, families) for name in names), now)

    def _own(self, name: str) -> float:
        known = self._known.get(name)
        return known.own if known is not None else self._asked[name].num_passes * self._pass_seconds

    def _price(self, name: str, families: set[str]) -> float:
        """Return what measuring it costs beside these families, and put its own among them."""
        family = self._asked[name].family
        shared = 0.0 if family in families else self._common(name)
        families.add(family)
        return self._own(name) + shared

    def _common(self, name: str) -> float:
        asked = self._asked[name]
        return self._shared.get(asked.family, asked.num_shared * self._pass_seconds)

    def _worth(self, name: str, now: float) -> float:
        known = self._known[name]
        return self._value(name) * (now - known.measured_at) / max(known.own, 1e-6)

    # Learning -----------------------------------------------------------------------------------

    def pay(self, own: Mapping[str, float], shared: Mapping[str, float], now: float, *, passed: float = 0.0) -> None:
        """Charge what measurements cost, and remember it as their price.

        Args:
            own: seconds by name.
            shared: seconds by family.
            now: the clock.
            passed: seconds of one forward pass over the probe, if there was one.
        """
        self.ledger.charge(sum(own.values()) + sum(shared.values()), now)
        if passed:
            self._pass_seconds = min(passed, self._pass_seconds or passed)  # the first one warms up
        elif not self._pass_seconds:
            self._pass_seconds = sum(own.values()) + sum(shared.values())
        is_new = False
        for name, cost in own.items():
            known = self._known.get(name)
            if known is None:
                self._known[name], is_new = _Known(cost, now), True
            else:
                known.own, known.measured_at = _MEMORY * known.own + (1 - _MEMORY) * cost, now
        for family, cost in shared.items():
            before = self._shared.get(family)
            self._shared[family] = cost if before is None else _MEMORY * before + (1 - _MEMORY) * cost
        if is_new:
            self._next_plan = now

    def learn(self, name: str, change: float, seconds: float) -> None:
        """Take in by how much, in relative squares, a metric has changed in so many seconds."""
        known, rate = self._known[name], change / max(seconds, 1e-9)
        known.change = rate if known.change is None else _CHANGE_MEMORY * known.change + (1 - _CHANGE_MEMORY) * rate

    def measured_at(self, name: str) -> float | None:
        """Return the clock when it was last measured, or None."""
        known = self._known.get(name)
        return None if known is None else known.measured_at

    def price(self, name: str) -> float:
        """Return the seconds of its own that one measurement takes, as far as is known."""
        return self._own(name)

    def _value(self, name: str) -> float:
        middle = self._middle
        change = self._known[name].change if name in self._known else None
        change = middle if change is None else change
        return self._asked[name].weight * min(max(change, middle / _MOST_UNLIKE), middle * _MOST_UNLIKE)

    # Planning -----------------------------------------------------------------------------------

    def plan(self, step: int, now: float) -> bool:
        """Choose intervals anew if it is time to; tell whether any has changed."""
        if now < self._next_plan:
            return False
        self._next_plan = now + _REPLAN_SECONDS
        self._time_steps(step, now)
        changes = [known.change for known in self._known.values() if known.change]
        self._middle = median(changes) if changes else 1.0
        items = self._items()
        if not items or not self._step_seconds:
            return False
        periods, stretch = paced(items, self._shared_of(items), self._target(items, now), LONGEST_SECONDS)
        before = dict(self.intervals)
        self.intervals |= {name: self._steps(name, period) for name, period in periods.items()}
        if stretch * LONGEST_SECONDS > _WARN_SECONDS and self.ledger.elapsed(now) > _WARN_SECONDS:
            self._warn(items, periods)
        return self.intervals != before

    def planned(self, seconds: float, now: float) -> None:
        """Charge what planning took, and wait before the next so long that it stays a small part of the budget."""
        self.ledger.charge(seconds, now)
        self._next_plan = max(self._next_plan, now + seconds / (_PLANNING * self.share))

    def _time_steps(self, step: int, now: float) -> None:
        """Follow how long a step of training takes without us."""
        last, at, total = self._mark
        if step > last:
            seconds = max(now - at - (self.ledger.total - total), 1e-9) / (step - last)
            unlike = self._step_seconds and not 0.5 < seconds / self._step_seconds < 2.0
            keeps = 0.0 if unlike or not self._step_seconds else _MEMORY
            self._step_seconds = keeps * self._step_seconds + (1 - keeps) * seconds
            self._mark = step, now, self.ledger.total

    def _items(self) -> dict[str, Item]:
        step = self._step_seconds
        items = {}
        for name, asked in self._asked.items():
            if name not in self._known or asked.interval is None:
                continue
            base = asked.interval * step
            shortest = max(min(base, _SHORTEST_SECONDS), step) if asked.is_free else base
            present = self.intervals[name] * step
            items[name] = Item(
                asked.family, self._known[name].own, max(self._value(name), 1e-12), base, shortest, present
            )  # fmt: skip
        return items

    def _shared_of(self, items: Mapping[str, Item]) -> dict[str, float]:
        return {family: self._shared.get(family, 0.0) for family in {item.family for item in items.values()}}

    def _target(self, items: Mapping[str, Item], now: float) -> float:
        """Return the share to plan with: what is left over is spent within a minute, what is owed is paid back so.

        What has been saved for the next measurement of the dear ones is not left over.
        """
        accrued, families = 0.0, dict[str, float]()
        for name, item in items.items():
            part = min(1.0, (now - self._known[name].measured_at) / max(item.present or 1.0, 1e-9))
            accrued += item.own * part
            families[item.family] = min(part, families.get(item.family, 1.0))
        accrued += sum(part * self._shared.get(family, 0.0) for family, part in families.items())
        left = self.ledger.saved(now) - accrued
        goal = min(max(self.share + left / MINUTE_SECONDS, 0.1 * self.share), self.share) * 0.95
        self._goal = goal if self._goal is None else _GOAL_MEMORY * self._goal + (1 - _GOAL_MEMORY) * goal
        return self._goal

    def _steps(self, name: str, period: float) -> int:
        interval = self._asked[name].interval
        assert interval is not None
        octaves = round(math.log2(period / (interval * self._step_seconds)))
        return interval << octaves if octaves >= 0 else max(1, interval >> -octaves)

    def _warn(self, items: Mapping[str, Item], periods: Mapping[str, float]) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        slowest = max(periods, key=lambda name: (periods[name], items[name].own))
        needed = sum(item.own for item in items.values()) + sum(self._shared_of(items).values())
        dearest = max(items, key=lambda name: items[name].own)
        share = math.ceil(100 * needed / AT_LONGEST / MINUTE_SECONDS)
        self.warning = (
            f"expected a budget that measures all of {len(items)} metrics at least once a minute, got "
            f"{100 * self.share:.3g} % of wall time in budget=, with which {slowest!r} comes every "
            f"{periods[slowest] / MINUTE_SECONDS:.2g} minutes; all of them together take {needed:.3g} s, of that "
            f"{dearest!r} {items[dearest].own:.3g} s: give budget='{share}%', "
            f"a smaller probe, or leave {dearest!r} out of probes="
        )
