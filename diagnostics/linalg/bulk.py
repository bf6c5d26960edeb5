"""Where the bulk of a spectrum ends and its outliers begin.

P size of the operator, m Ritz values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator

BULK_SHARE = 0.9  # of the eigenvalues that counts as bulk for its scale, so up to a tenth may be outliers
SETTLED = 0.05  # residual over Ritz value at which it stands for an eigenvalue, not for a stretch of the bulk


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
    is_clear: bool  # no Ritz value above the bulk is still on its way to an eigenvalue


def krylov_spectra(
    operator: Operator, *, generator: torch.Generator, num_steps: int
) -> tuple[KrylovSpectrum, KrylovSpectrum]:
    """Return the spectrum as a Krylov basis shows it after 80 % and after all of its products.

    Three chains in one basis with full reorthogonalisation, of 60, 20 and 20 % of the products: the first
    sees each eigenvalue once, the two others from fresh vectors bring in further copies. What both spectra
    agree on does not hang on the size of the basis. Weights are those of the first chain's start vector;
    if the basis spans the whole space, all are 1/P.

    Args:
        operator: symmetric, (P, P).
        generator: draws the start vectors.
        num_steps: most products; P at most are made.

    Raises:
        NonFiniteProduct: if a product holds NaN or infinity.
    """
    size = operator.shape[0]
    total = min(num_steps, size)
    basis = KrylovBasis(operator)
    found = []
    for share in (0.6, 0.8, 1.0):
        basis.start_random(generator)
        _grow(basis, generator, total if total == size else round(share * total))
        found.append(_spectrum(basis, size))
    return found[1], found[2]


def find_bulk(spectrum: KrylovSpectrum, separation: float) -> Bulk:
    """Return the bulk's upper edge and the number of eigenvalues beyond it.

    The scale of the bulk b is the 90 % quantile of |λ − median| by quadrature weight. Going down from the
    largest Ritz value, the edge is the last gap such that the value above it is at least `separation` times
    the one below, and times b; and such that all values above are settled (residual ≤ 5 %), so they are
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
    return Bulk(edge, count, scale, _is_clear(spectrum, is_settled, is_apart & (values > 0)))


def weighted_quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Return the smallest value up to which lies a share `level` of the weight.

    >>> weighted_quantile(np.array([3.0, 1.0, 2.0]), np.array([0.2, 0.5, 0.3]), 0.6)
    2.0
    """
    order = np.argsort(values)
    mass = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(mass, level - 1e-9)), len(values) - 1)])


def _is_clear(spectrum: KrylovSpectrum, is_settled: np.ndarray, is_apart: np.ndarray) -> bool:
    """Tell whether no gap is left out only because a value above it is still unsettled.

    Where a continuous bulk is sampled, neighbours are about a residual apart: such gaps are none.
    """
    values, residuals = spectrum.values, spectrum.residuals
    is_real = -np.diff(values) > 3 * np.maximum(residuals[1:], residuals[:-1])
    first = int(np.argmin(is_settled))
    return bool(is_settled[first] or not (is_apart[:-1] & is_real)[first:].any())


def _grow(basis: KrylovBasis, generator: torch.Generator, num_products: int) -> None:
    while basis.num_products < num_products:
        if basis.exhausted and not basis.start_random(generator):
            return
        basis.step()


def _spectrum(basis: KrylovBasis, size: int) -> KrylovSpectrum:
    values, residuals, coordinates = basis.ritz()
    whole = len(values) == size
    weights = np.full(size, 1 / size) if whole else coordinates[0] ** 2
    return KrylovSpectrum(values[::-1].copy(), residuals[::-1].copy(), weights[::-1].copy(), size, basis.num_products)
