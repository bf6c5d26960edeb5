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

# A chain at the end of its space goes on in noise, amplified to any direction; unmultiplied, that vector would
# hide what it overlaps from the chains after it. So a chain ends where what is new is below this, relative to
# the spectrum's scale: well below the default accuracy, and the same whatever is asked for (up to tol / 100).
BREAKDOWN = 1e-6
# Two eigenvalues closer than a residual can pass for one between them: residuals are held to this many times tol.
PAIR_SLACK = 10.0
# With which a verified run may still have missed a copy, by the bound in `_Copies.ruled_out`.
FAILURE_PROBABILITY = 1e-3


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues of one end, outermost first."""

    values: np.ndarray  # (k,)
    errors: np.ndarray  # (k,) estimates of |θ − λ|, see `ritz_errors`
    residuals: np.ndarray  # (k,) ‖A y − θ y‖, bounds on the distance to the nearest eigenvalue
    converged: np.ndarray  # (k,) of bool
    vectors: Tensor | None = None  # (P, k), unit columns, when asked for


@dataclass(frozen=True)
class Extremes:
    """What a run of `lanczos` found at both ends."""

    top: Eigenpairs  # descending
    bottom: Eigenpairs  # ascending
    num_products: int
    verified: bool  # settled, and no further copy of an eigenvalue belongs among the wanted (or none was looked for)
    leading: tuple[Tensor, float]  # the first vectors Q of the first chain, (j, P), and tr QᵀAQ on them


def lanczos(
    operator: Operator,
    num_top: int,
    num_bottom: int = 0,
    *,
    generator: torch.Generator,
    tol: float = 1e-4,
    max_iterations: int = 200,
    vectors: bool = False,
    verify: bool = True,
    num_leading: int = 0,
) -> Extremes:
    """Return the `num_top` largest and `num_bottom` smallest algebraic eigenvalues of a symmetric operator.

    Lanczos' recursion with full reorthogonalisation from one random vector, until every wanted Ritz value θ
    has an estimated error (`ritz_errors`) ≤ tol · max(|θ|, scale/10), scale = max|θ| over all Ritz values.
    With `vectors` the residual ‖A y − θ y‖ must be as small as that: an eigenvector's error is of first
    order in the residual, an eigenvalue's of second.

    One start vector meets an eigenvalue of any multiplicity once, and a tight cluster as one. A further
    copy matters if others of the wanted would have to make room for it, so never for one eigenvalue of an
    end. Otherwise a fresh random vector, orthogonal to all that was seen, starts a second chain. It goes on
    until the moments of its products leave no room for a copy but with a probability of 1e-3, and for half
    the steps of the run at most (an eigenvalue's error falls as the square of its residual: in half the
    steps a copy is in its place). What it brings in is settled and verified again.

    Args:
        operator: symmetric, with `shape`, `dtype`, `device` and `operator @ v`.
        num_top: how many from the upper end; at most P are given.
        num_bottom: how many from the lower end; at most P are given.
        generator: draws the start vectors, on the CPU.
        tol: accuracy of the eigenvalues, relative to each (to the spectrum's scale / 10 near zero).
        max_iterations: most products to spend, verification included; the basis takes as many vectors.
        vectors: return eigenvectors too.
        verify: look for further copies; without, each eigenvalue may be given fewer times than it stands.
        num_leading: vectors of the basis to give back, for use elsewhere.

    Raises:
        ValueError: if nothing is wanted, or an argument is out of range.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Lanczos 1950; errors, Parlett, The Symmetric Eigenvalue Problem (1998), §11.7 and §13.2.

    Example:
        >>> A = torch.diag(torch.tensor([-2.0, 0.0, 1.0, 7.0]))
        >>> found = lanczos(A, 2, 1, generator=torch.Generator().manual_seed(0))
        >>> found.top.values.round(4), found.bottom.values.round(4)
        (array([7., 1.]), array([-2.]))
    """
    _check(num_top, num_bottom, tol, max_iterations)
    size = operator.shape[0]
    basis = KrylovBasis(operator, breakdown=min(BREAKDOWN, tol / 100))
    search = _Search(
        basis, _guarded(num_top, size), _guarded(num_bottom, size), tol, by_residual=vectors,
        has_guard=(num_top == 1, num_bottom == 1),
    )  # fmt: skip
    verified = search.run(generator, min(max_iterations, size), verify)
    state = search.state

    def pairs(chosen: np.ndarray) -> Eigenpairs:
        found = basis.vectors(state.coordinates[:, chosen]) if vectors else None
        return Eigenpairs(
            state.values[chosen], state.errors[chosen], state.residuals[chosen], state.settled[chosen], found
        )

    order = np.arange(len(state.values))
    top, bottom = order[::-1][:num_top], order[:num_bottom]
    return Extremes(pairs(top), pairs(bottom), basis.num_products, verified, basis.first(num_leading))


def _guarded(num_wanted: int, size: int) -> int:
    """Return how many eigenvalues of an end must settle: one alone is joined by its neighbour.

    A single Ritz value can rest at λ_2 for a few steps, with a small residual, before λ_1 shows: at
    tol 1e-4 in 4 of 200 matrices with λ_2 = 0.98 λ_1, and in none once λ_2 had to settle as well. It makes
    that rarer, not impossible: at tol 1e-2 4 of the 200 still missed (198 before).
    """
    return min(max(num_wanted, 2) if num_wanted else 0, size)


def ritz_errors(values: np.ndarray, residuals: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """Return estimates (m,) of |θ − λ|: min(r, r²/gap) + rounding.

    r is the residual without its rounding, which moves an eigenvalue in first order and is added. r alone
    is a bound. r²/gap is one if no eigenvalue but λ lies within gap of θ; the gap is taken from the
    other Ritz values, min_j |θ_j − θ| − r_j, so the estimate assumes that they show the spectrum around θ:
    not so within a cluster tighter than r, where only r holds, nor for copies that were not looked for.

    Args:
        values: Ritz values θ (m,), ascending.
        residuals: ‖A y − θ y‖ (m,).
        rounding: the part of the residuals that is rounding of products (m,).

    Source: Parlett, The Symmetric Eigenvalue Problem (1998), Theorem 11.7.1 (Kato, Temple).

    Example:
        >>> ritz_errors(np.array([0.0, 10.0]), np.array([1.0, 1e-2]), np.zeros(2)).round(7).tolist()  # 1e-4 / (10 − 1)
        [0.1001001, 1.11e-05]
    """
    rest = np.sqrt(np.maximum(residuals**2 - rounding**2, 0.0))
    distance = np.abs(values[:, None] - values) - residuals  # (m, m), to the nearest that θ_j may stand for
    np.fill_diagonal(distance, np.inf)
    gap = distance.min(1, initial=np.inf)
    known = (gap > rest) & np.isfinite(gap)
    return np.where(known, rest**2 / np.where(known, gap, 1.0), rest) + rounding


@dataclass(frozen=True)
class _State:
    """The Ritz pairs of all products up to a check, m of them, ascending."""

    values: np.ndarray  # (m,)
    residuals: np.ndarray  # (m,)
    coordinates: np.ndarray  # (m, m)
    errors: np.ndarray  # (m,)
    settled: np.ndarray  # (m,) of bool


@dataclass
class _Search:
    """The run: chains of products until the wanted Ritz values are settled and verified."""

    basis: KrylovBasis
    num_top: int
    num_bottom: int
    tol: float
    by_residual: bool  # settle on residuals, for eigenvectors
    has_guard: tuple[bool, bool]  # top, bottom: only the outermost is wanted, the other one guards it
    state: _State = field(init=False)  # as of the last check; the products that found no copy are not in it
    wanted: np.ndarray = field(init=False)  # as of the last check, ascending

    def run(self, generator: torch.Generator, max_products: int, verify: bool) -> bool:
        """Spend up to `max_products`. Returns whether the wanted eigenvalues are settled and verified."""
        if not self._settle(generator, max_products):
            return False
        while verify and (copies := self._copies_that_matter()):
            num_verifying = math.ceil(self.basis.num_products / 2)
            before = self.wanted
            if self.basis.num_products >= max_products:
                return self._exact()
            if not self.basis.start_random(generator):  # the basis spans the whole space: multiply what is left
                self._exhaust(max_products)
                self._check_settled()
                return self._exact()
            outcome = self._look_for(copies, min(num_verifying, max_products - self.basis.num_products))
            if outcome == "absent":
                break
            whole = self.basis.num_products < max_products
            if not self._settle(generator, max_products):
                return False
            if outcome == "unseen" and self._unchanged(before):
                return whole or self._exact()
        return True

    def _judged(self) -> _State:
        """Return all Ritz pairs with their errors, and which of them have settled.

        Relative to the value itself, or λ_5 of a spectrum with one large outlier would be called done far
        too soon; and to a tenth of the scale near zero, where no relative accuracy exists.
        """
        values, residuals, coordinates = self.basis.ritz()
        errors = ritz_errors(values, residuals, self.basis.rounding(coordinates))
        size = np.abs(values)
        slack = self.tol * np.maximum(size, size.max(initial=0.0) / 10)
        within = residuals <= slack if self.by_residual else (errors <= slack) & (residuals <= PAIR_SLACK * slack)
        return _State(values, residuals, coordinates, errors, within)

    def _settle(self, generator: torch.Generator, max_products: int) -> bool:
        """Go on until all wanted Ritz values are settled; put in a fresh vector where a chain has ended."""
        while not self._check_settled():
            if self.basis.num_products >= max_products:
                return False
            if self.basis.exhausted and not self.basis.start_random(generator):
                return False
            # an eigenproblem of m × m a step costs little while m is small; later, look less often
            self._follow(min(1 + self.basis.num_products // 64, max_products - self.basis.num_products))
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
        self.state = self._judged()
        size = len(self.state.values)
        chosen = np.r_[: self.num_bottom, size - self.num_top : size]
        self.wanted, settled = self.state.values[chosen], self.state.settled[chosen]
        self.basis.turn_to(self.state.coordinates[:, chosen[~settled]])
        return bool(settled.all())

    def _unchanged(self, before: np.ndarray) -> bool:
        return bool(np.allclose(self.wanted, before, rtol=0, atol=self.tol * np.abs(before).max(initial=0.0)))

    def _copies_that_matter(self) -> list[_Copies]:
        """Return, for each end, what a fresh chain must be shown not to hide. A negated end is a top."""
        ends = [self.wanted[self.num_bottom :], -self.wanted[: self.num_bottom][::-1]]  # (k,) ascending each
        scale = float(np.abs(self.wanted).max(initial=0.0))
        found = []
        for sign, end, has_guard in zip((1, -1), ends, self.has_guard, strict=True):
            if len(end) == 0 or has_guard:  # a copy of the outermost one alone changes nothing
                continue
            innermost = float(end[0]) + self.tol * max(abs(float(end[0])), scale / 10)
            least = min((float(v) for v in end if v > innermost), default=None)
            if least is not None:
                found.append(_Copies(sign, innermost, least))
        return found

    def _look_for(self, copies: list[_Copies], num_steps: int) -> str:
        """Follow a fresh chain: "present" once it shows a value among the wanted, "absent", or "unseen" so far."""
        for taken in range(1, num_steps + 1):
            goes_on = self.basis.step()
            T = self.basis.latest(taken)
            if any(c.shown(T) for c in copies):
                return "present"
            if not goes_on or all(c.ruled_out(T, self.basis.dimension) for c in copies):
                return "absent"
        return "unseen"


@dataclass(frozen=True)
class _Copies:
    """Eigenvalues that would change the answer at one end; the lower end is negated."""

    sign: int
    innermost: float  # of the wanted, with its slack: beyond it a value belongs among the wanted
    least: float  # the smallest value that a copy worth finding can have

    def shown(self, T: np.ndarray) -> bool:
        """Tell whether a chain's Ritz values reach in among the wanted."""
        return bool(np.linalg.eigvalsh(self.sign * T)[-1] > self.innermost)

    def ruled_out(self, T: np.ndarray, dimension: int) -> bool:
        """Tell whether a copy at or beyond `least` is improbable after a chain with the matrix T (m, m).

        No measure with the moments that the chain has seen puts more mass on a point t outside its Ritz
        values than Christoffel's function ρ(t) = 1/Σ_j p_j(t)² = x_1²/‖x‖², (T − t) x = e_m. A unit start
        vector at random has less than c of its square on a given direction with probability ≤ √(2cP/π).

        Source: Chebyshev, Markov, Stieltjes; Golub and Meurant, Matrices, Moments and Quadrature (2010), §2.
        """
        T = self.sign * T
        if np.linalg.eigvalsh(T)[-1] >= self.least:
            return False
        x = np.linalg.solve(T - self.least * np.eye(len(T)), np.eye(len(T))[-1])
        return float(x[0] ** 2 / (x @ x)) * 2 * dimension / math.pi <= FAILURE_PROBABILITY**2


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
