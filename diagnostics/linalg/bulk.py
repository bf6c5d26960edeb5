"""Where the bulk of a spectrum ends and its outliers begin.

P size of the operator, m Ritz values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BULK_SHARE = 0.9  # of the eigenvalues that counts as bulk for its scale, so up to a tenth may be outliers
SETTLED = 0.01  # residual over Ritz value at which it stands for an eigenvalue, not for a stretch of the bulk
STRETCH = 20  # eigenvalues that an unsettled Ritz value stands for, by its weight, where the bulk has begun


@dataclass(frozen=True)
class KrylovSpectrum:
    """Ritz values of an operator, descending, with residuals and quadrature weights."""

    values: np.ndarray  # (m,)
    residuals: np.ndarray  # (m,)
    weights: np.ndarray  # (m,) share of the eigenvalues that each stands for, adding up to 1
    size: int  # P
    num_products: int

    @property
    def is_whole(self) -> bool:
        """Whether every eigenvalue is there."""
        return len(self.values) == self.size


@dataclass(frozen=True)
class Bulk:
    """The bulk's upper edge and what lies beyond."""

    edge: float
    num_outliers: int
    scale: float  # size of the bulk: the 90 % quantile of |λ − median|
    is_clear: bool  # no unsettled Ritz value hides another edge below this one


def find_bulk(spectrum: KrylovSpectrum, separation: float) -> Bulk:
    """Return the bulk's upper edge and the number of eigenvalues beyond it.

    The scale of the bulk b is the 90 % quantile of |λ − median| by quadrature weight. Going down from the
    largest Ritz value, the edge is the last gap such that the value above it is at least `separation` times
    the one below, and times b; and such that all values above are settled (residual ≤ 1 %), so they are
    eigenvalues and not points at which a continuous bulk is sampled. Eigenvalues above it are outliers.

    A heavy-tailed spectrum without such a gap has no outliers by this rule; a power law λ_i = 1/i has one
    for `separation` = 2.

    Args:
        spectrum: Ritz values, descending.
        separation: smallest ratio across the gap, > 1.

    Example:
        >>> values = np.array([9.0, 8.0, 1.0, 0.9, 0.8] + [0.0] * 45)
        >>> whole = KrylovSpectrum(values, np.zeros(50), np.full(50, 1 / 50), 50, 50)
        >>> find_bulk(whole, 1.5).num_outliers, find_bulk(whole, 1.5).edge
        (5, 0.0)
        >>> values = np.r_[9.0, 8.0, np.linspace(1, -1, 48)]
        >>> spread = KrylovSpectrum(values, np.zeros(50), np.full(50, 1 / 50), 50, 50)
        >>> find_bulk(spread, 1.5).num_outliers, find_bulk(spread, 1.5).edge
        (2, 1.0)
    """
    values = spectrum.values
    median = weighted_quantile(values, spectrum.weights, 0.5)
    scale = weighted_quantile(np.abs(values - median), spectrum.weights, BULK_SHARE)
    below = np.append(values[1:], -np.inf)
    is_apart = (values >= separation * np.maximum(below, scale)) & (values > below)
    is_settled = spectrum.residuals <= SETTLED * np.abs(values)
    gaps = np.flatnonzero(is_apart & np.logical_and.accumulate(is_settled) & (values > 0))
    count = int(gaps[-1]) + 1 if len(gaps) else 0
    edge = float(values[count]) if count < len(values) else float(median)
    return Bulk(edge, count, scale, _is_clear(spectrum, separation, scale, count))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Return the smallest value up to which lies a share `level` of the weight.

    >>> weighted_quantile(np.array([3.0, 1.0, 2.0]), np.array([0.2, 0.5, 0.3]), 0.6)
    2.0
    """
    order = np.argsort(values)
    mass = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(mass, level - 1e-9)), len(values) - 1)])


def _is_clear(spectrum: KrylovSpectrum, separation: float, scale: float, num_outliers: int) -> bool:
    """Tell whether no gap below the one that was taken is left out because values next to it are unsettled.

    A value may still move by its residual. Between two neighbouring eigenvalues there is one Ritz value at most,
    on its way from one to the other: so an unsettled one may go, and open a gap. The search ends where an
    unsettled value stands for `STRETCH` eigenvalues and more, a stretch of the bulk.
    """
    values, residuals = spectrum.values, spectrum.residuals
    unsettled = residuals > SETTLED * np.abs(values)
    stretches = np.flatnonzero(unsettled & (spectrum.weights * spectrum.size >= STRETCH))
    end = int(stretches[0]) if len(stretches) else len(values)
    below = np.append(values, [-np.inf, -np.inf])
    for i in range(num_outliers, end):
        highest = values[i] + residuals[i]
        if not (highest > 0 and highest >= separation * scale):
            break
        neighbour = below[i + 2] if i + 1 < len(values) and unsettled[i + 1] else below[i + 1]
        is_gap = highest >= separation * max(neighbour, scale) and highest > neighbour
        if is_gap and (unsettled[: i + 2].any()):
            return False
    return True
