"""The price of watching: a share of wall time, spent so that each diagnostic gets its part of it.

Every diagnostic has an account. Income, `share` seconds for each second of wall time, is split evenly among
the accounts that cannot yet pay their next measurement; a measurement that is due is taken when its account
covers what it cost before, and pays what it really costs. So cheap diagnostics are measured whenever they are
due and spectra as seldom as they must be, none starves another, and the sum stays within the share but for
the measurement in hand. This is deficit round robin (Shreedhar and Varghese 1995) with seconds for bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
    if not 0 < share <= 1:
        raise ValueError(
            f"expected a share of wall time such as '5%' or 0.05, got {budget!r} in budget=; "
            "budget=None turns the budget off and follows the schedule exactly"
        )
    return share


@dataclass
class _Account:
    credit: float = 0.0  # seconds
    price: float | None = None  # seconds of one measurement, None until there was one

    @property
    def lacks(self) -> float:
        return 0.0 if self.price is None else max(0.0, self.price - self.credit)


class Budget:
    """Decides what of all that is due is measured now.

    Args:
        share: of wall time, 0 < share ≤ 1.
        names: the diagnostics that share it.
        now: the clock at the start, in seconds.
    """

    def __init__(self, share: float, names: Iterable[str], now: float) -> None:
        self.share = share
        self._accounts = {name: _Account() for name in names}
        self._waiting: set[str] = set()
        self._time = now

    def chosen(self, due: Iterable[str], now: float, *, momentary: frozenset[str] = frozenset()) -> list[str]:
        """Return what to measure now: what is due, or was and had to wait, and can be paid.

        The first measurement of each is always taken: it finds the price, and is owed. `momentary` ones
        exist only at their step: they are dropped instead of waiting.
        """
        self._earn(now)
        due = set(due)
        asked = [name for name in self._accounts if name in due or name in self._waiting]
        taken = [name for name in asked if self._accounts[name].lacks == 0.0]
        self._waiting = set(asked) - set(taken) - momentary
        return taken

    def pay(self, seconds: Mapping[str, float]) -> None:
        """Charge what measurements cost, and remember it as their price."""
        for name, cost in seconds.items():
            account = self._accounts[name]
            account.credit -= cost
            before = cost if account.price is None else account.price
            account.price = _COST_MEMORY * before + (1 - _COST_MEMORY) * cost

    def _earn(self, now: float) -> None:
        """Split the income since the last call among the accounts that lack money, evenly, to the last."""
        income, self._time = self.share * max(0.0, now - self._time), now
        lacking = sorted((a for a in self._accounts.values() if a.lacks > 0), key=lambda a: a.lacks)
        for index, account in enumerate(lacking):
            part = min(account.lacks, income / (len(lacking) - index))
            account.credit += part
            income -= part
