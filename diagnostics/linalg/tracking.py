"""The largest eigenvalues of an operator that changes slowly, followed from one measurement to the next.

P size of the operator, k wanted eigenvalues, s ≤ k + 2 kept vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.copies import Copies
from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator
from trainvitals.diagnostics.linalg.lanczos import BREAKDOWN, Eigenpairs
from trainvitals.diagnostics.linalg.ritz_errors import ritz_errors

GUARD = 0.2  # error that the first eigenvalue not wanted may have, relative to the largest
NUM_MORE = 2  # products beyond those of the wanted vectors, at least: with fewer the gap is not known
RESIDUAL = 5.0  # times tol: the largest residual; two eigenvalues closer than it can pass for one between them
# The scout's parts, of unit length, beside the next Ritz vector.
LEFT_OVER = 0.3  # what the last measurement left unmultiplied: from one to the next a Krylov chain of its own
MIX = 0.1  # the hint, and a random vector
NUM_RULING_OUT = 20  # most products of a search outside what is followed
FAILURE_PROBABILITY = 1e-2  # of one such search; the next one comes


@dataclass(frozen=True)
class Tracked:
    """One measurement, and what the next one starts from."""

    top: Eigenpairs  # k, descending, with vectors
    kept: Tensor  # (P, s) k + 1 Ritz vectors, the largest first, and what was left unmultiplied
    num_products: int
    outside: str  # a larger eigenvalue outside: "ruled out", "found", "unknown", or "not looked for"


def track(
    operator: Operator,
    num_top: int,
    kept: Tensor | None,
    *,
    hint: Tensor,
    generator: torch.Generator,
    tol: float = 1e-2,
    max_iterations: int = 100,
    look_outside: bool = False,
) -> Tracked:
    """Return the k largest eigenvalues of a symmetric operator near one whose top eigenvectors are known.

    The first k kept vectors are multiplied once each; so is a scout, the next one mixed with what the last
    measurement left unmultiplied, the hint and a random vector: through it an eigenvalue that rises is seen
    before it is the largest. Products go on, where the residual of the worst Ritz vector lies, until each of the
    k has an estimated error (`ritz_errors`) ≤ tol · max(|θ|, scale/10) and a residual ≤ 5 times that, and the next
    one an error ≤ 0.2 of the largest. Without kept vectors the start is random, and the next one held to tol.

    An eigenvector outside the span shows in no residual. `look_outside` rules it out: a random vector
    orthogonal to the settled Ritz vectors starts a chain, until its moments leave no room for an eigenvalue
    larger than the k-th but with a probability of 1e-2 (`Copies.ruled_out`, for a start in the complement of
    eigenvectors), or one is shown, which is then among the k; 20 products at most.

    Args:
        operator: symmetric, with `shape`, `dtype`, `device` and `operator @ v`.
        num_top: k; at most P are given.
        kept: what the last measurement gave as `kept`, (P, s), or None for a cold start.
        hint: a vector in which new large eigenvectors may lie, (P,): the gradient. Zero is none.
        generator: draws random vectors, on the CPU.
        tol: accuracy of the eigenvalues, relative to each (to the scale / 10 near zero).
        max_iterations: most products.
        look_outside: rule out what the basis cannot show.

    Raises:
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Rayleigh-Ritz and its errors, Parlett, The Symmetric Eigenvalue Problem (1998), §11; the scout is ours.

    Example:
        >>> A = torch.diag(torch.arange(50.0))
        >>> options = {"hint": torch.ones(50), "generator": torch.Generator().manual_seed(0)}
        >>> first = track(A, 1, None, **options)
        >>> again = track(1.1 * A, 1, first.kept, **options)
        >>> again.top.values.round(1), again.num_products < first.num_products
        (array([53.9]), True)
    """
    size = operator.shape[0]
    basis = KrylovBasis(operator, BREAKDOWN)
    search = _Search(operator, basis, min(num_top, size), tol, tol if kept is None else GUARD, generator)
    limit = min(max_iterations, size)
    if kept is None or kept.shape[0] != size:
        basis.start_random(generator)
    else:
        search.start_from(kept, hint)
    search.settle(limit)
    outside = search.look_outside(limit) if look_outside else "not looked for"
    return Tracked(*search.found(), search.basis.num_products + search.num_spent, outside)


@dataclass
class _Search:
    """One measurement: the products, and what they are judged by."""

    operator: Operator
    basis: KrylovBasis
    num_top: int
    tol: float
    guard: float
    generator: torch.Generator
    num_spent: int = 0  # beside those of the basis

    def start_from(self, kept: Tensor, hint: Tensor) -> None:
        """Multiply the kept vectors of the wanted, and the scout."""
        self._multiply(kept[:, : self.num_top])
        noise = torch.randn(len(kept), generator=self.generator, dtype=torch.float64).to(kept)
        scout = MIX * (_unit(noise) + _unit(hint.to(kept)))
        for share, vector in zip((1.0, LEFT_OVER), kept[:, self.num_top :].unbind(1), strict=False):
            scout = scout + share * vector
        self._multiply(scout[:, None])

    def _multiply(self, starts: Tensor) -> None:
        for vector in starts.unbind(1):
            if self.basis.start(vector):
                self.basis.step()

    def settle(self, max_products: int) -> None:
        """Go on until the wanted Ritz values are settled, or the products are spent."""
        while not self._judged().is_settled and self.basis.num_products < max_products:
            if self.basis.exhausted and not self.basis.start_random(self.generator):
                return
            self.basis.step()

    def look_outside(self, max_products: int) -> str:
        """Look for an eigenvalue that the basis cannot show, larger than the least wanted; take it in."""
        state = self._judged()
        likely = state.settled & (np.arange(len(state.values)) >= len(state.values) - self.num_top - 1)
        least = float(state.values[-self.num_top] + state.slack[-self.num_top])
        chain = KrylovBasis(self.operator, BREAKDOWN)  # of its own: what is left unmultiplied would hide its overlap
        chain.lock(self.basis.vectors(state.coordinates[:, likely]))
        outcome = _search_outside(chain, least, self.generator, max_products - self.basis.num_products)
        self.num_spent = chain.num_products
        if outcome == "found":  # afresh, for the same reason
            self.num_spent += self.basis.num_products
            starts = self.basis.vectors(state.coordinates[:, -self.num_top :])
            starts = torch.cat([starts, chain.vectors(chain.ritz()[2][:, -1:])], 1)
            self.basis = KrylovBasis(self.operator, BREAKDOWN)
            self._multiply(starts)
            self.settle(max_products - self.num_spent)
        return outcome

    def found(self) -> tuple[Eigenpairs, Tensor]:
        """Return the wanted pairs, and the vectors to keep."""
        state = self._judged()
        order = np.arange(len(state.values))[::-1][: self.num_top + 1]
        ritz, left_over = self.basis.vectors(state.coordinates[:, order]), self.basis.newest()
        kept = ritz if left_over is None else torch.cat([ritz, left_over[:, None].to(ritz)], 1)
        top = order[: self.num_top]
        return Eigenpairs(
            state.values[top], state.errors[top], state.residuals[top], state.settled[top], kept[:, : self.num_top]
        ), kept

    def _judged(self) -> _State:
        """Return all Ritz pairs and whether the wanted have settled; goes to where the worst of them is open."""
        values, residuals, coordinates = self.basis.ritz()
        if len(values) == 0:
            return _State(values, coordinates, residuals, values, values, values > 0, False)
        errors = ritz_errors(values, residuals, self.basis.rounding(coordinates))
        slack = self.tol * np.maximum(np.abs(values), np.abs(values).max() / 10)
        settled = (errors <= slack) & (residuals <= RESIDUAL * slack)
        k, whole = self.num_top, self.basis.complete and self.basis.exhausted
        enough = len(values) > k and self.basis.num_products >= k + NUM_MORE
        beside = enough and errors[-k - 1] <= self.guard * np.abs(values).max()
        is_settled = bool(len(values) >= k and settled[-k:].all() and (beside or whole))
        if not is_settled:
            lacking = np.flatnonzero(~settled[-k:]) + max(len(values) - k, 0)
            self.basis.turn_to(coordinates[:, lacking if len(lacking) else [max(len(values) - k - 1, 0)]])
        return _State(values, coordinates, residuals, errors, slack, settled, is_settled)


def _search_outside(chain: KrylovBasis, least: float, generator: torch.Generator, max_products: int) -> str:
    """Follow a random chain until it shows an eigenvalue beyond `least`, or its moments rule one out."""
    copies = Copies(1, least, least)
    if not chain.start_random(generator):
        return "ruled out"
    for taken in range(1, min(NUM_RULING_OUT, max_products) + 1):
        goes_on = chain.step()
        T = chain.latest(taken)
        if copies.shown(T):
            return "found"
        if not goes_on or copies.ruled_out(T, chain.dimension, FAILURE_PROBABILITY):
            return "ruled out"
    return "unknown"


@dataclass(frozen=True)
class _State:
    """All Ritz pairs, ascending, m of them."""

    values: np.ndarray  # (m,)
    coordinates: np.ndarray  # (m, m)
    residuals: np.ndarray  # (m,)
    errors: np.ndarray  # (m,)
    slack: np.ndarray  # (m,) the error allowed
    settled: np.ndarray  # (m,) of bool
    is_settled: bool  # all wanted are, and the next one is known well enough


def _unit(vector: Tensor) -> Tensor:
    """Return v/‖v‖; a vector that is zero or not finite gives zero."""
    length = torch.linalg.vector_norm(vector)
    return vector / length if 0 < float(length) < float("inf") else torch.zeros_like(vector)
