"""The trace of an operator by Hutchinson's estimator beside a Krylov space that grows while that pays.

P size of the operator, n probes, j deflated vectors, g grown ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.complement import Complement
from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator
from trainvitals.diagnostics.linalg.multiply import multiply_rows, offered_block
from trainvitals.diagnostics.linalg.trace import (
    Deflation,
    TraceEstimate,
    estimate_of,
    hutchinson,
    random_signs,
    standard_error,
)

# Stopping where an error is low, on samples that a few directions left of a steep spectrum skew: with the plain error
# 0.87 of 200 seeds lay within twice of it on the worst of six spectra (0.95 to 0.98 on models).
SELECTED = 1.2
FEWEST = 6  # fresh samples whose own variance counts
MANY = 10**9


@dataclass(frozen=True)
class GrownTrace:
    """An estimate, and what it cost beyond the Krylov vectors that were given."""

    estimate: TraceEstimate
    num_grown: int  # g
    num_products: int  # probes, grown vectors, and one to take up the chain again


def krylov_trace(
    operator: Operator,
    deflation: Deflation,
    *,
    generator: torch.Generator,
    tol: float,
    min_probes: int = 12,
    max_products: int = 32,
) -> GrownTrace:
    """Estimate tr A = tr QᵀAQ + E[zᵀPAPz] to a standard error ≤ tol · |tr A|, Q a Krylov space, P = I − QQᵀ.

    After `min_probes` probes with the vectors given, their variance says how many more would be needed. Is that
    more than the Krylov space has vectors, the space is doubled instead: the same probes give samples for the
    larger one, zᵀAz − 2cᵀQᵀAz + cᵀTc with c = Qᵀz, for no product more. It goes on until the last doubling
    took more products than it saved probes (a flat spectrum has nothing to deflate), or to the whole space where
    that is less than the probes. The rest are probes, as many again as the first at least where the space has
    grown: it grew until the variance of the first was low, so the fresh ones' own variance is held against it.

    The Krylov space knows nothing of the probes, so the estimate is free of bias but for where it stops.

    Memory: 2 · min_probes vectors of size P beside the Krylov space.

    Args:
        operator: symmetric, (P, P).
        deflation: Q, successive vectors of one Lanczos run from its start, and tr QᵀAQ.
        generator: draws the signs, on the CPU.
        tol: relative standard error.
        min_probes: probes before the first decision, ≥ 2.
        max_products: most products in all, those of the vectors given not counted, ≥ `min_probes`.

    Raises:
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Chen and Hallman 2023 (Krylov-aware); the split between sketch and probes by their variance, Persson,
    Cortinovis, Kressner 2022 (A-Hutch++). The rule of doubling is this project's.

    Example:
        >>> A = torch.diag(torch.cat([torch.linspace(10, 500, 30), torch.linspace(0, 1, 170)]))
        >>> basis = KrylovBasis(A)
        >>> _ = basis.start_random(torch.Generator().manual_seed(1)), [basis.step() for _ in range(8)]
        >>> found = krylov_trace(A, Deflation(*basis.first(8)), generator=torch.Generator().manual_seed(0), tol=0.01)
        >>> abs(found.estimate.value - float(A.trace())) < 3 * found.estimate.standard_error + 1e-2
        True
    """
    if len(deflation.rows) == operator.shape[0]:
        return GrownTrace(hutchinson(operator, generator=generator, tol=tol, deflation=deflation), 0, 0)
    pilot = _Pilot(operator, deflation, generator, min_probes)
    needed = pilot.num_needed(tol)
    while room := operator.shape[0] - pilot.num_deflated:
        doubling = min(pilot.num_deflated, room)
        cost = doubling + (pilot.num_grown == 0)
        if needed <= cost or pilot.num_products + cost > max_products or not pilot.grow(doubling):
            break
        saved, needed = needed - pilot.num_needed(tol), pilot.num_needed(tol)
        if saved < cost and needed < room:  # the whole space, if it is cheaper than the probes, is exact
            break
    chosen, deflated = list(pilot.samples), pilot.deflation()
    fresh: list[float] = []
    left = max_products - pilot.num_products
    at_least = min_probes if pilot.num_grown else 0
    while left and (count := max(at_least - len(fresh), _num_needed(chosen, fresh, deflated.trace, tol))):
        # all that the variance asks for, then a second look: a look after each would stop where it is low
        count = min(left, count)
        for size in _blocks(count, offered_block(operator)):
            fresh += _more(operator, deflated, generator, size)
        left -= count
    return GrownTrace(_estimate(chosen, fresh, deflated.trace, tol), pilot.num_grown, max_products - left)


def _estimate(chosen: list[float], fresh: list[float], exact: float, tol: float) -> TraceEstimate:
    """Return the mean of all samples, and the larger of the errors by all and by the fresh ones' variance.

    The Krylov space was grown until the first samples' variance was low, so it is lower than the truth.
    """
    found = estimate_of(chosen + fresh, exact, len(chosen) + len(fresh), tol)
    if len(fresh) < FEWEST:
        return found
    error = standard_error(fresh) * math.sqrt(len(fresh) / found.num_probes)
    error = SELECTED * max(error, found.standard_error)
    return replace(found, standard_error=error, converged=error <= tol * abs(found.value))


def _num_needed(chosen: list[float], fresh: list[float], exact: float, tol: float) -> int:
    """Return how many more probes the error asks for; as many as there are where no number suffices."""
    found = _estimate(chosen, fresh, exact, tol)
    target = tol * abs(found.value)
    if found.standard_error <= target:
        return 0
    ratio = found.standard_error / target if target else math.inf
    return math.ceil(min(found.num_probes * (ratio**2 - 1), MANY))


def _blocks(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]


def _more(operator: Operator, deflation: Deflation, generator: torch.Generator, count: int) -> list[float]:
    probes = deflation.remove_rows(random_signs(operator, generator, count))
    return (probes.double() * multiply_rows(operator, probes).double()).sum(1).tolist()


class _Pilot:
    """The first probes with their products, and the Krylov space that grows beneath them."""

    def __init__(self, operator: Operator, deflation: Deflation, generator: torch.Generator, count: int) -> None:
        self._operator, self._given = operator, deflation
        self._probes = deflation.remove_rows(random_signs(operator, generator, count))  # (n, P)
        self._products = multiply_rows(operator, self._probes)  # (n, P)
        self._plain = (self._probes.double() * self._products.double()).sum(1).cpu().numpy()
        self._basis: KrylovBasis | None = None
        self._rows, self._trace = deflation.rows[:0], 0.0
        self.samples = self._plain
        self.num_products = count
        self.num_grown = 0

    @property
    def num_deflated(self) -> int:
        return len(self._given.rows) + self.num_grown

    def deflation(self) -> Deflation:
        return Deflation(torch.cat([self._given.rows, self._rows]), self._given.trace + self._trace)

    def num_needed(self, tol: float) -> int:
        return _num_needed(list(self.samples), [], self._given.trace + self._trace, tol)

    def grow(self, count: int) -> bool:
        """Add up to `count` vectors to the Krylov space. False if it has come to its end."""
        if self._basis is None:
            self._basis = self._taken_up()
        if self._basis is None or self._basis.exhausted:
            return False
        for _ in range(count):
            self.num_products += 1
            if not self._basis.step():
                break
        self.num_grown = self._basis.num_products
        self._rows, self._trace = self._basis.first(self.num_grown)
        self._resample(self._basis.latest(self.num_grown))
        return True

    def _taken_up(self) -> KrylovBasis | None:
        """Return the chain from where the vectors given end: their last product, less what they span."""
        left = Complement(self._operator, self._given.rows)
        basis = KrylovBasis(left)
        self.num_products += 1
        start = multiply_rows(self._operator, self._given.rows[-1:])[0]
        remainder = left.remove(start)
        small = 1e-6 * torch.linalg.vector_norm(start)  # the chain had ended: what is left is rounding
        return basis if torch.linalg.vector_norm(remainder) > small and basis.start(remainder) else None

    def _resample(self, T: np.ndarray) -> None:
        inside = _dot(self._rows, self._probes)  # (g, n)
        across = _dot(self._rows, self._products)
        self.samples = self._plain - 2 * (inside * across).sum(0) + (inside * (T @ inside)).sum(0)


def _dot(rows: Tensor, vectors: Tensor) -> np.ndarray:
    return (rows @ vectors.T).double().cpu().numpy()
