"""Extreme eigenvalues by Lanczos' method, both ends of the spectrum in one run.

P size of the operator, k wanted eigenvalues, m products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues of one end, outermost first, each with its residual ‖A y − θ y‖ ≥ |θ − λ|."""

    values: np.ndarray  # (k,)
    residuals: np.ndarray  # (k,)
    converged: np.ndarray  # (k,) of bool
    vectors: Tensor | None = None  # (P, k), unit columns, when asked for


@dataclass(frozen=True)
class Extremes:
    """What a run of `lanczos` found at both ends."""

    top: Eigenpairs  # descending
    bottom: Eigenpairs  # ascending
    num_products: int
    verified: bool  # a fresh start vector found no further copy of an eigenvalue among the wanted


def lanczos(
    operator: Operator,
    num_top: int,
    num_bottom: int = 0,
    *,
    generator: torch.Generator,
    tol: float = 1e-3,
    max_iterations: int = 200,
    vectors: bool = False,
) -> Extremes:
    """Return the `num_top` largest and `num_bottom` smallest algebraic eigenvalues of a symmetric operator.

    Lanczos' recursion with full reorthogonalisation from one random vector, until every wanted Ritz pair
    (θ, y) has a residual ‖A y − θ y‖ ≤ tol · max(|θ|, scale/10), scale = max|θ| over all Ritz values.

    One start vector meets an eigenvalue of any multiplicity once, and a tight cluster as one. So the
    wanted ones are then verified: a fresh random vector, orthogonal to all that was seen, starts a second
    chain half as long as the run so far (an eigenvalue's error falls as the square of its residual: in
    half the steps it is in its place to about `tol`). What it brings in is converged and verified again.

    Args:
        operator: symmetric, with `shape`, `dtype`, `device` and `operator @ v`.
        num_top: how many from the upper end; at most P are given.
        num_bottom: how many from the lower end; at most P are given.
        generator: draws the start vectors, on the CPU.
        tol: tolerance of the residuals, relative to the eigenvalue (to the spectrum's scale / 10 near zero).
        max_iterations: most products to spend, verification included; the basis takes as many vectors.
        vectors: return eigenvectors too.

    Raises:
        ValueError: if nothing is wanted, or an argument is out of range.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Lanczos 1950; stopping by residuals, Parlett, The Symmetric Eigenvalue Problem (1998), §13.2.

    Example:
        >>> A = torch.diag(torch.tensor([-2.0, 0.0, 1.0, 7.0]))
        >>> found = lanczos(A, 2, 1, generator=torch.Generator().manual_seed(0))
        >>> found.top.values.round(4), found.bottom.values.round(4)
        (array([7., 1.]), array([-2.]))
    """
    _check(num_top, num_bottom, tol, max_iterations)
    size = operator.shape[0]
    # A chain at the end of its space goes on in noise, amplified to any direction; unmultiplied, that vector
    # would hide what it overlaps from the chains after it. So a chain ends well below the accuracy asked for.
    basis = KrylovBasis(operator, breakdown=tol / 100)
    search = _Search(basis, min(num_top, size), min(num_bottom, size), tol)
    verified = search.run(generator, min(max_iterations, size))
    values, residuals, coordinates = search.basis.ritz()
    settled = _settled(values, residuals, tol)

    def pairs(chosen: np.ndarray) -> Eigenpairs:
        found = search.basis.vectors(coordinates[:, chosen]) if vectors else None
        return Eigenpairs(values[chosen], residuals[chosen], settled[chosen], found)

    order = np.arange(len(values))
    top, bottom = order[::-1][: search.num_top], order[: search.num_bottom]
    return Extremes(pairs(top), pairs(bottom), search.basis.num_products, verified)


@dataclass
class _Search:
    """The run: chains of products until the wanted Ritz values are settled and verified."""

    basis: KrylovBasis
    num_top: int
    num_bottom: int
    tol: float
    wanted: np.ndarray = field(init=False, default_factory=lambda: np.zeros(0))  # as of the last check

    def run(self, generator: torch.Generator, max_products: int) -> bool:
        """Spend up to `max_products`. Returns whether the wanted eigenvalues are settled and verified."""
        if not self._settle(generator, max_products):
            return False
        num_verifying = math.ceil(self.basis.num_products / 2)
        while self.basis.num_products < max_products:
            before = self.wanted
            if not self.basis.start_random(generator):  # the basis spans the whole space: multiply what is left
                self._exhaust(max_products)
                break
            self._follow(min(num_verifying, max_products - self.basis.num_products))
            whole = self.basis.num_products < max_products
            if not self._settle(generator, max_products):
                return False
            if self._unchanged(before):
                return whole or self._exact()
        return self._exact()

    def _settle(self, generator: torch.Generator, max_products: int) -> bool:
        """Go on until all wanted Ritz values are settled; put in a fresh vector where a chain has ended."""
        while not self._check_settled():
            if self.basis.num_products >= max_products:
                return False
            if self.basis.exhausted and not self.basis.start_random(generator):
                return False
            # an eigenproblem of m × m a step costs little while m is small; later, look less often
            self._follow(min(1 + self.basis.num_products // 32, max_products - self.basis.num_products))
        return True

    def _follow(self, num_steps: int) -> None:
        """Take steps along the newest chain, to its end at most."""
        for _ in range(num_steps):
            if self.basis.exhausted or not self.basis.step():
                return

    def _exhaust(self, max_products: int) -> None:
        while not self.basis.exhausted and self.basis.num_products < max_products:
            self.basis.step()

    def _exact(self) -> bool:
        """Whether T is the whole operator, in another basis."""
        return self.basis.complete and self.basis.exhausted

    def _check_settled(self) -> bool:
        if self.basis.num_products < max(self.num_top, self.num_bottom):
            return False
        values, residuals, _ = self.basis.ritz()
        chosen = np.r_[: self.num_bottom, len(values) - self.num_top : len(values)]
        self.wanted = values[chosen]
        return bool(_settled(values, residuals, self.tol)[chosen].all())

    def _unchanged(self, before: np.ndarray) -> bool:
        return bool(np.allclose(self.wanted, before, rtol=0, atol=self.tol * np.abs(before).max(initial=0.0)))


def _settled(values: np.ndarray, residuals: np.ndarray, tol: float) -> np.ndarray:
    """Tell which Ritz values (m,) have converged: residual ≤ tol · max(|θ|, scale/10).

    Relative to the value itself, as ARPACK does, or λ_5 of a spectrum with one large outlier would be
    called done far too soon; and to a tenth of the scale near zero, where no relative accuracy exists.
    """
    size = np.abs(values)
    return residuals <= tol * np.maximum(size, size.max(initial=0.0) / 10)


def _check(num_top: int, num_bottom: int, tol: float, max_iterations: int) -> None:
    if num_top < 0 or num_bottom < 0 or num_top + num_bottom == 0:
        raise ValueError(
            f"expected at least one eigenvalue of either end, got num_top={num_top}, num_bottom={num_bottom} "
            "in lanczos; ask for one or more"
        )
    if not tol > 0 or max_iterations < max(num_top, num_bottom):
        raise ValueError(
            f"expected tol > 0 and max_iterations ≥ the number of eigenvalues, got tol={tol}, "
            f"max_iterations={max_iterations} in lanczos; raise them"
        )
