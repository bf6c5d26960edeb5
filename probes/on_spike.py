"""Measure when a loss has just jumped: a schedule that listens to what is logged and measured."""

from __future__ import annotations

import math
import statistics
from collections import deque

from trainvitals.probes.schedule import NEVER, Combinable, whole

_NORMAL_MAD = 0.6745  # median absolute deviation of a normal distribution with standard deviation 1
_MIN_VALUES = 16  # before so many there is no telling what is usual
_LEAST_SPREAD = 1e-3  # of the median: a loss that stands still does not jump in its last digit


class OnSpike(Combinable):
    """Due at the step after a number stood far above its own running median. Made by `on_spike`."""

    def __init__(self, of: str | None, deviations: float, window: int, rest: int) -> None:
        self._of, self._deviations, self._window, self._rest = of, deviations, window, rest
        self._values: dict[str, deque[float]] = {}
        self._due_at = -1

    def fresh(self) -> OnSpike:
        """Return the same schedule for another run: nothing heard yet."""
        return OnSpike(self._of, self._deviations, self._window, self._rest)

    def due(self, step: int) -> bool:
        """Tell whether a spike was seen after the step before."""
        return step == self._due_at

    def after(self, step: int) -> int:
        """Return the next step that is known to be due."""
        return self._due_at if self._due_at > step else NEVER

    def hear(self, step: int, name: str, value: float) -> bool:
        """Take in a number of this step; tell whether it is a spike that makes the next step due."""
        if name != self._of if self._of is not None else "loss" not in name:
            return False
        values = self._values.setdefault(name, deque(maxlen=self._window))
        has_rested = self._due_at < 0 or step >= self._due_at + self._rest
        is_spike = has_rested and len(values) >= _MIN_VALUES and self._stands_out(value, values)
        if math.isfinite(value):
            values.append(value)
        if is_spike:
            self._due_at = step + 1
        return is_spike

    def _stands_out(self, value: float, values: deque[float]) -> bool:
        middle = statistics.median(values)
        spread = statistics.median(abs(v - middle) for v in values) / _NORMAL_MAD
        return not value <= middle + self._deviations * max(spread, _LEAST_SPREAD * abs(middle))  # NaN stands out

    def __str__(self) -> str:
        return f"when {self._of or 'a loss'} jumps"


def on_spike(of: str | None = None, *, deviations: float = 6.0, window: int = 64, rest: int = 50) -> OnSpike:
    """Measure at the step after a loss has jumped: above its running median by `deviations` robust standard deviations.

    Heard are numbers given to `run.log`, and those that are measured, such as `loss.train`. The spread is
    MAD / 0.6745 of the last `window` values, as in Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers.
    NaN and infinity stand out too. Nothing is due before 16 values.

    Args:
        of: the name that was logged or measured; None: any name with "loss" in it, each on its own.
        deviations: how far is far.
        window: values that the median is of.
        rest: steps after a spike in which no other counts.

    Raises:
        ValueError: if `window` or `rest` is no whole number, of at least 16 and 0.

    >>> schedule = on_spike("train_loss")
    >>> heard = [schedule.hear(step, "train_loss", 1.0 + 0.01 * (step % 3)) for step in range(20)]
    >>> any(heard), schedule.hear(20, "train_loss", 5.0), schedule.due(21)
    (False, True, True)
    """
    hint = "write on_spike('train_loss', deviations=6)"
    whole(window, _MIN_VALUES, "on_spike(window=)", hint)
    whole(rest, 0, "on_spike(rest=)", hint)
    return OnSpike(of, float(deviations), window, rest)
