"""How much a series scatters round its own course, and how long its scatter is remembered.

Legend: n points.
"""

from __future__ import annotations

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
    return robust_deviation(np.diff(y, 2)) / np.sqrt(6) if len(y) >= 4 else 0.0


def autocorrelation(residuals: Floats) -> float:
    """Return the lag-1 autocorrelation, held within [0, 0.95]: noise that alternates is taken for white.

    The sample's own bias of −(1 + 4ρ)/n is put right to first order (Kendall 1954).
    """
    n = len(residuals)
    power = float(np.sum(residuals**2))
    if n < 4 or power == 0:
        return 0.0
    rho = float(np.sum(residuals[1:] * residuals[:-1])) / power
    return float(np.clip(rho + (1 + 4 * rho) / n, 0.0, 0.95))


def long_run_deviation(residuals: Floats) -> float:
    """Return σ√((1+ρ)/(1−ρ)): the deviation whose square over n is the variance of a mean of n such residuals."""
    rho = autocorrelation(residuals)
    deviation = float(np.std(residuals))
    return deviation * np.sqrt((1 + rho) / (1 - rho))


def running_median(y: Floats, width: int) -> Floats:
    """Return the median of each point and up to `width` − 1 points before it, (n,).

    >>> running_median(np.array([1.0, 9.0, 2.0, 3.0]), 3).tolist()
    [1.0, 5.0, 2.0, 3.0]
    """
    if len(y) < width:
        return np.array([np.median(y[: i + 1]) for i in range(len(y))])
    windows = np.lib.stride_tricks.sliding_window_view(y, width)
    head = [np.median(y[: i + 1]) for i in range(width - 1)]
    return np.concatenate([head, np.median(windows, axis=1)])
