"""How much a series scatters round its own course, and its course without single bounces.

Legend: n points.
"""

from __future__ import annotations

import math

import numpy as np

from trainvitals.verdicts.series import Floats

_NORMAL_MAD = 0.6745  # median absolute deviation of a normal distribution with standard deviation 1


def robust_deviation(x: Floats) -> float:
    """Return MAD/0.6745: the standard deviation of normal numbers, that single outliers do not move.

    >>> robust_deviation(np.array([1.0, 2.0, 3.0, 4.0, 1000.0])).__round__(4)
    1.4826
    """
    return float(np.median(np.abs(x - np.median(x)))) / _NORMAL_MAD if len(x) else 0.0


def noise_deviation(y: Floats) -> float:
    """Return the deviation of the noise on a smooth course: of second differences, over √6.

    A course that is straight over three points does not count; slow wandering of the noise itself does not either.
    0 for fewer than 4 points.

    Source: Gasser, Sroka, Jennen-Steinmetz 1986, Residual variance and residual pattern in nonlinear regression.

    >>> noise_deviation(np.arange(100.0))
    0.0
    """
    return robust_deviation(np.diff(y, 2)) / math.sqrt(6) if len(y) >= 4 else 0.0


def running_noise(y: Floats, width: int = 25) -> Floats:
    """Return at each point the deviation of the noise, (n,), as `noise_deviation` of the points up to it.

    From the last `width` second differences, so that it follows a noise that changes; 0 for the first two points.
    """
    if len(y) < 4:
        return np.zeros(len(y))
    second = np.abs(np.diff(y, 2))
    return np.concatenate([[0.0, 0.0], running_median(second, width)]) / (_NORMAL_MAD * np.sqrt(6))


def running_median(y: Floats, width: int) -> Floats:
    """Return the median of each point and up to `width` − 1 points before it, (n,): it looks back only.

    >>> running_median(np.array([1.0, 9.0, 2.0, 3.0]), 3).tolist()
    [1.0, 5.0, 2.0, 3.0]
    """
    if len(y) < width:
        return np.array([np.median(y[: i + 1]) for i in range(len(y))])
    windows = np.lib.stride_tricks.sliding_window_view(y, width)
    head = [np.median(y[: i + 1]) for i in range(width - 1)]
    return np.concatenate([head, np.median(windows, axis=1)])
