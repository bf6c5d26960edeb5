"""What measuring has cost: since the run began, and over the last minute."""

from __future__ import annotations

from collections import deque

MINUTE_SECONDS = 60.0


class Ledger:
    """Seconds spent, beside the share of wall time that may be spent.

    Two rules hold: the sum is within the share of the time since the start (of a minute, in the first one), and
    what was spent in any minute is within the share of a minute. A measurement that alone is dearer than a minute's
    share cannot keep the second; it is made when all of it has been saved, and stands outside the minute's sum. Where
    one was dearer than foreseen, so that the first rule is broken, half of the share goes on and half pays it back.

    Args:
        share: of wall time.
        now: the clock at the start, in seconds.

    >>> ledger = Ledger(0.1, now=0.0)
    >>> ledger.can_pay(5.0, 0.0), ledger.can_pay(7.0, 0.0), ledger.can_pay(7.0, 70.0)
    (True, False, True)
    """

    def __init__(self, share: float, now: float) -> None:
        self.share = share
        self.total = 0.0
        self._start = now
        self._bins: deque[list[float]] = deque()  # [second, spent, spent on what a minute cannot pay]
        self._minute, self._large = 0.0, 0.0
        self._has_large = False

    def charge(self, seconds: float, now: float) -> None:
        """Write down what was spent."""
        is_large = seconds > self.share * MINUTE_SECONDS
        self._has_large |= is_large
        self.total += seconds
        if not self._bins or now - self._bins[-1][0] >= 1.0:
            self._bins.append([now, 0.0, 0.0])
        self._bins[-1][1] += seconds
        self._bins[-1][2] += seconds * is_large
        self._minute += seconds
        self._large += seconds * is_large

    def can_pay(self, seconds: float, now: float) -> bool:
        """Tell whether a measurement of this price keeps both rules."""
        elapsed = now - self._start + seconds
        allowed = self.share * MINUTE_SECONDS
        self._forget(now)
        if self.total + seconds > self.share * max(elapsed, MINUTE_SECONDS):
            return self._has_large and self._minute - self._large + seconds <= allowed / 2
        return seconds > allowed or self._minute - self._large + seconds <= allowed

    def saved(self, now: float) -> float:
        """Return the seconds of the share since the start that were not spent; below 0 what is owed."""
        return self.share * (now - self._start) - self.total

    def elapsed(self, now: float) -> float:
        """Return the seconds since the start."""
        return now - self._start

    def share_so_far(self, now: float) -> float:
        """Return the share of the time since the start."""
        return self.total / max(now - self._start, 1e-9)

    def share_of_last_minute(self, now: float) -> float:
        """Return the share of the last minute, or of the time since the start if that is less."""
        self._forget(now)
        return self._minute / max(min(now - self._start, MINUTE_SECONDS), 1e-9)

    def _forget(self, now: float) -> None:
        while self._bins and self._bins[0][0] < now - MINUTE_SECONDS:
            _, spent, large = self._bins.popleft()
            self._minute -= spent
            self._large -= large
        if not self._bins:
            self._minute = self._large = 0.0
