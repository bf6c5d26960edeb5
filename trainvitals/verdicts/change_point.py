"""When did it begin: the step or the bend in a series, found exactly among all places where it can be.

Two shapes are fitted by least squares, each at every place: a level that changes once (a step) and a level that
turns into a slope (a bend). Sums from the end make both linear in the number of points.

Source: the least-squares estimator of one change, as Bai 1994, Least squares estimation of a shift in linear processes.

Legend: n points y_0..y_{n−1}, k the index of the first point after the change.
"""

from __future__ import annotations

import numpy as np

from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.series import Floats

_LEVEL_STILL = 0.05  # of a rise: so much is no rise yet


def step_errors(y: Floats) -> Floats:
    """Return for k = 1..n−1 the squared error (n−1,) of the best two levels, one before k and one from k on.

    >>> step_errors(np.array([0.0, 0.0, 1.0, 1.0])).round(3).tolist()
    [0.667, 0.0, 0.667]
    """
    n, left = len(y), np.cumsum(y - y.mean())[:-1]  # centred first: no cancellation for far-off levels
    k = np.arange(1, n)
    total = float(np.sum((y - y.mean()) ** 2))
    return np.maximum(total - left**2 * n / (k * (n - k)), 0.0)


def bend_errors(y: Floats) -> Floats:
    """Return for k = 0..n−2 the squared error (n−1,) of the best level up to k that goes on as a slope from k.

    The fit is a + b·max(t − k, 0), t the index of the point.

    >>> bend_errors(np.array([0.0, 0.0, 0.0, 1.0, 2.0])).round(3).tolist()[2]
    0.0
    """
    n = len(y)
    centred = y - y.mean()
    m = np.arange(n - 1, 0, -1, dtype=np.float64)  # points beyond k, for k = 0..n−2
    sum_h, sum_hh = m * (m + 1) / 2, m * (m + 1) * (2 * m + 1) / 6  # of max(t − k, 0) and its square
    tail = np.cumsum(centred[::-1])[::-1]  # Σ_{t ≥ k} y_t
    sum_hy = np.cumsum(tail[::-1])[::-1][1:]  # Σ (t − k) y_t over t > k is the sum of the tails behind k
    variance = sum_hh - sum_h**2 / n
    total = float(np.sum(centred**2))
    return np.maximum(total - sum_hy**2 / np.maximum(variance, 1e-300), 0.0)


def onset(y: Floats, noticed: int, *, rising: bool) -> int:
    """Return the index at which the rise (or fall) began that was noticed at an index.

    From the lowest point before `noticed` (the highest, for a fall) to `noticed` a step and a bend are fitted, and
    the better of the two tells the place: what lies before that lowest point went the other way, or was level. It is
    not put earlier than the last point that had a twentieth of the rise, as a bend would be where a rise has steps.

    >>> onset(np.array([3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]), 8, rising=True)
    5
    """
    z = np.asarray(y[: noticed + 1]) * (1 if rising else -1)
    lowest = int(np.argmin(z))
    z = z[lowest:]
    if len(z) < 3:
        return min(lowest + 1, noticed) if len(z) == 2 else lowest
    steps, bends = step_errors(z), bend_errors(z)
    fitted = int(np.argmin(steps)) + 1 if steps.min() < bends.min() else int(np.argmin(bends))
    smooth = running_median(z, 3)
    below = np.flatnonzero(smooth <= smooth[0] + _LEVEL_STILL * (z[-1] - smooth[0]))
    return lowest + max(fitted, int(below[-1]) - 1 if len(below) else 0)  # the median of three lags by one
