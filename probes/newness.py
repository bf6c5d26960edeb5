"""How fast a metric changes: what tells when its last value has grown old."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Reading

_MAX_VALUES = 4096  # of one metric are compared: a landscape tells no more with all of its losses


class Newness:
    """Remembers an earlier value of each diagnostic and says by how much the present one differs.

    The earlier one is at least `lag_seconds` old: over one common time what is measured often and what is measured
    seldom can be compared, also where a metric drifts rather than walks at random.

    >>> newness = Newness(lag_seconds=10.0)
    >>> newness.seen("loss", [Reading(value=2.0)], 0.0), newness.seen("loss", [Reading(value=2.1)], 5.0)
    (None, None)
    >>> newness.seen("loss", [Reading(value=2.2)], 10.0)  # ((2.2 − 2.0) / 2.1)², in ten seconds
    (0.00907..., 10.0)
    """

    def __init__(self, lag_seconds: float = 10.0) -> None:
        self._lag_seconds = lag_seconds
        self._before: dict[str, tuple[list[NDArray | None], float]] = {}

    def seen(self, name: str, readings: Sequence[Reading], now: float) -> tuple[float, float] | None:
        """Return (relative squared change, seconds) since an earlier value, or None where there is none old enough.

        Of several parts the mean counts. What the stated error explains is no change.
        """
        before = self._before.get(name)
        if before is not None and now - before[1] < self._lag_seconds:
            return None
        values = [None if r.value is None else np.ravel(np.asarray(r.value, float))[:_MAX_VALUES] for r in readings]
        self._before[name] = values, now
        if before is None:
            return None
        found = [
            squared_change(old, new, reading.error)
            for old, new, reading in zip(before[0], values, readings, strict=False)
            if old is not None and new is not None
        ]
        return (float(np.mean(found)), now - before[1]) if found else None


def squared_change(old: NDArray, new: NDArray, error: object = None) -> float:
    """Return ‖y − x‖² / (½(‖x‖ + ‖y‖))², at most 1, less what standard errors of both explain; 1 for another shape.

    >>> squared_change(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    1.0
    """
    if old.shape != new.shape:
        return 1.0
    if np.array_equal(old, new, equal_nan=True):
        return 0.0
    size = (float(np.linalg.norm(old)) + float(np.linalg.norm(new))) / 2
    if not np.isfinite(size) or size == 0.0:
        return 1.0
    noise = 0.0 if error is None else 2 * float(np.sum(np.square(np.asarray(error, np.float64)[..., None])))
    change = float(np.sum(np.square(new - old))) - (noise if np.isfinite(noise) else 0.0)
    return min(1.0, max(0.0, change) / size**2)
