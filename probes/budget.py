"""The price of watching: a share of wall time, spent so that each kind of diagnostic gets its part of it.

Diagnostics that share their dearest work (one forward pass, one set of per-sample gradients, Hessian
products) form a bundle and are measured together: that is what makes them cheap. Every bundle has an account.
Income, `share` seconds for each second of wall time, is split evenly among the accounts that cannot yet pay
for what is due in them; a bundle is measured when its account covers what it cost before, and pays what it
really costs. So cheap bundles are measured often and spectra as seldom as they must be, none starves another,
and the sum stays within the share but for the measurement in hand and the first one, which finds the prices
and is paid back. This is deficit round robin (Shreedhar and Varghese 1995) with seconds for bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_LOOK_SECONDS = 0.05  # what waits is looked at this often: cheaper than at every step of a fast run

# A new cost counts for as much as all before it: probes get dearer or cheaper as spectra change.
_COST_MEMORY = 0.5


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


@dataclass
class _Account:
    prices: dict[str, float | None]  # seconds of one measurement by diagnostic, None until there was one
    credit: float = 0.0  # seconds
    asked: set[str] = field(default_factory=set)  # due, or was due and could not be paid

    @property
    def lacks(self) -> float:
        """Seconds that are missing to measure all that is asked for."""
        return max(0.0, sum(self.prices[name] or 0.0 for name in self.asked or self.prices) - self.credit)


class Budget:
    """Decides what of all that is due is measured now.

    Args:
        share: of wall time, 0 < share ≤ 1.
        bundles: the name of its bundle for each diagnostic.
        now: the clock at the start, in seconds.
    """

    def __init__(self, share: float, bundles: Mapping[str, str], now: float) -> None:
        self.share = share
        self._bundles = dict(bundles)
        self._accounts: dict[str, _Account] = {}
        for name, bundle in bundles.items():
            self._accounts.setdefault(bundle, _Account({})).prices[name] = None
        self._time = now
        self._next_look = now

    def chosen(self, due: Iterable[str], now: float, *, momentary: frozenset[str] = frozenset()) -> list[str]:
        """Return what to measure now: what is due, or was and had to wait, and can be paid.

        The first measurement of each is always taken: it finds the price, and is owed. `momentary` ones
        exist only at their step: they are dropped instead of waiting.
        """
        due = list(due)
        if not due and now < self._next_look:
            return []
        self._next_look = now + _LOOK_SECONDS
        for name in due:
            self._accounts[self._bundles[name]].asked.add(name)
        self._earn(now)
        taken: list[str] = []
        for account in self._accounts.values():
            new = {name for name in account.asked if account.prices[name] is None}
            ready = account.asked if account.lacks == 0.0 else new
            taken += [name for name in account.prices if name in ready]
            account.asked = account.asked - ready - momentary
        return taken

    def can_pay(self, names: Iterable[str], now: float) -> bool:
        """Tell whether all of these could be measured at their known prices."""
        self._earn(now)
        wanted: dict[str, float] = {}
        for name in names:
            bundle = self._bundles[name]
            wanted[bundle] = wanted.get(bundle, 0.0) + (self._accounts[bundle].prices[name] or 0.0)
        return all(self._accounts[bundle].credit >= price for bundle, price in wanted.items())

    def pay(self, seconds: Mapping[str, float]) -> None:
        """Charge what measurements cost, and remember it as their price."""
        for name, cost in seconds.items():
            account = self._accounts[self._bundles[name]]
            account.credit -= cost
            before = account.prices[name]
            account.prices[name] = cost if before is None else _COST_MEMORY * before + (1 - _COST_MEMORY) * cost

    def _earn(self, now: float) -> None:
        """Split the income since the last call among the accounts that lack money, evenly, to the last."""
        income, self._time = self.share * max(0.0, now - self._time), now
        lacking = sorted((a for a in self._accounts.values() if a.lacks > 0), key=lambda a: a.lacks)
        for index, account in enumerate(lacking):
            part = min(account.lacks, income / (len(lacking) - index))
            account.credit += part
            income -= part
