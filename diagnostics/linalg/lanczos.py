"""Extreme eigenvalues by Lanczos' method, both ends of the spectrum in one run.

P size of the operator, k wanted eigenvalues, m products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.copies import Copies
from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator
from trainvitals.diagnostics.linalg.ritz_errors import ritz_errors

# A chain at the end of its space goes on in noise, amplified to any direction; unmultiplied, that vector would
# hide what it overlaps from the chains after it. So a chain ends where what is new is below this, relative to
# the spectrum's scale: well below the default accuracy, and the same whatever is asked for (up to tol / 100).
BREAKDOWN = 1e-6
# Memory for the basis before a run restarts, unless told; never fewer vectors than `_least_basis`.
BASIS_BYTES = 2**30


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
    basis_bytes: int  # memory of the basis, vectors of size P
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
    max_basis: int | None = None,
    basis_device: torch.device | str | None = None,
    locked: Eigenpairs | None = None,
    block_size: int = 1,
) -> Extremes:
    """Return the `num_top` largest and `num_bottom` smallest algebraic eigenvalues of a symmetric operator.

    Lanczos' recursion with full reorthogonalisation from one random vector, until every wanted Ritz value θ
    has an estimated error (`ritz_errors`) ≤ tol · max(|θ|, scale/10), scale = max|θ| over all Ritz values.
    With `vectors` the residual ‖A y − θ y‖ must be as small as that: an eigenvector's error is of first
    order in the residual, an eigenvalue's of second. Otherwise residuals are held to `pair_slack`: two
    eigenvalues closer than a residual can pass for one between them.

    One start vector meets an eigenvalue of any multiplicity once, and a tight cluster as one. A further
    copy matters if others of the wanted would have to make room for it, so never for one eigenvalue of an
    end. Otherwise a fresh random vector, orthogonal to all that was seen, starts a second chain. It goes on
    until the moments of its products leave no room for a copy but with a probability of 1e-3, and for half
    the steps of the run at most (an eigenvalue's error falls as the square of its residual: in half the
    steps a copy is in its place). What it brings in is settled and verified again.

    A basis that has grown to `max_basis` restarts with the wanted Ritz vectors and the next ones to them
    (thick restart): the same answers within the tolerance for more products. A copy is looked for with the room
    that is left, and `verified` is false if that was less than half the steps of the run.

    Args:
        operator: symmetric, with `shape`, `dtype`, `device` and `operator @ v`.
        num_top: how many from the upper end; at most P are given.
        num_bottom: how many from the lower end; at most P are given.
        generator: draws the start vectors, on the CPU.
        tol: accuracy of the eigenvalues, relative to each (to the spectrum's scale / 10 near zero).
        max_iterations: most products to spend, verification included.
        vectors: return eigenvectors too.
        verify: look for further copies; without, each eigenvalue may be given fewer times than it stands.
        num_leading: vectors of the basis to give back, for use elsewhere; fewer if it restarted before.
        max_basis: most vectors of size P to hold. Unless told, as many as fit into 1 GiB, at least three for each
            eigenvalue and ten more.
        basis_device: where these live, and eigenvectors are given; the operator's device unless told.
        locked: eigenpairs of the upper end with vectors, from a run before: the search goes on in their
            complement, from a fresh random vector, and they are among what is given, as they are. Locked vectors
            do not count in `max_basis`. Pairs locked that are not the outermost lower what is found.
        block_size: start vectors, given to the operator at once (`operator @ V`). Worth it where a pass of b is
            cheaper than b passes: b = 4 takes a third of the passes and 1.4 to 1.9 times the products of b = 1
            without verification. A block of b meets an eigenvalue b times, so only what was met as often is looked
            for again.

    Raises:
        ValueError: if nothing is wanted, an argument is out of range, or locked pairs have no vectors.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Lanczos 1950; restarts, Wu and Simon 2000, §2; errors, Parlett, The Symmetric Eigenvalue Problem
    (1998), §11.7 and §13.2.

    Example:
        >>> A = torch.diag(torch.tensor([-2.0, 0.0, 1.0, 7.0]))
        >>> found = lanczos(A, 2, 1, generator=torch.Generator().manual_seed(0))
        >>> found.top.values.round(4), found.bottom.values.round(4)
        (array([7., 1.]), array([-2.]))
    """
    _check(num_top, num_bottom, tol, max_iterations)
    size = operator.shape[0]
    num_locked = _num_locked(locked, num_top)
    num_starts = max(1, min(block_size, size - num_locked))
    ends = _guarded(num_top - num_locked, size - num_locked), _guarded(num_bottom, size - num_locked)
    max_basis = _max_basis(max_basis, sum(ends), operator, num_starts)
    basis = KrylovBasis(operator, min(BREAKDOWN, tol / 100), basis_device, max_basis + num_locked)
    if locked is not None and locked.vectors is not None:
        basis.lock(locked.vectors)
    search = _Search(
        basis, *ends, tol, by_residual=vectors, has_guard=(num_top == 1, num_bottom == 1),
        max_size=max_basis + num_locked, num_leading=num_leading, block_size=num_starts,
    )  # fmt: skip
    # without restarts P products are the whole matrix
    enough = size - num_locked if max_basis == size else max_iterations
    verified = search.run(generator, min(max_iterations, enough), verify)
    state = search.state

    def pairs(chosen: np.ndarray) -> Eigenpairs:
        found = basis.vectors(state.coordinates[:, chosen]) if vectors else None
        return Eigenpairs(
            state.values[chosen], state.errors[chosen], state.residuals[chosen], state.settled[chosen], found
        )

    order = np.arange(len(state.values))
    top, bottom = pairs(order[::-1][: num_top - num_locked]), pairs(order[:num_bottom])
    top = top if locked is None else _joined(locked, top)
    return Extremes(top, bottom, basis.num_products, basis.num_bytes, verified, search.leading())


def pair_slack(tol: float) -> float:
    """Return the largest residual, relative as `tol` is, of an eigenvalue called settled: min(10 tol, √tol / 10).

    Never below tol. Ten times tol alone is too much for a loose one: at tol 1e-3 that gave 3.7 % of the runs on
    twenty checkpoints of digits models a wrong fifth eigenvalue (a neighbour at 3 %), this 0.6 %.
    """
    return max(tol, min(10 * tol, 0.1 * math.sqrt(tol)))


def _guarded(num_wanted: int, size: int) -> int:
    """Return how many eigenvalues of an end must settle: one alone is joined by its neighbour.

    A single Ritz value can rest at λ_2 for a few steps, with a small residual, before λ_1 shows: at
    tol 1e-4 in 4 of 200 matrices with λ_2 = 0.98 λ_1, and in none once λ_2 had to settle as well. It makes
    that rarer, not impossible: at tol 1e-2 4 of the 200 still missed (198 before), and none since residuals are held
    to `pair_slack`.
    """
    return max(0, min(max(num_wanted, 2) if num_wanted else 0, size))


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
    max_size: int  # of the basis
    num_leading: int
    block_size: int
    first: tuple[Tensor, float] | None = None  # the leading vectors, put aside by the first restart
    state: _State = field(init=False)  # as of the last check; the products that found no copy are not in it
    wanted: np.ndarray = field(init=False)  # as of the last check, ascending

    def run(self, generator: torch.Generator, max_products: int, verify: bool) -> bool:
        """Spend up to `max_products`. Returns whether the wanted eigenvalues are settled and verified."""
        for _ in range(self.block_size):
            self.basis.start_random(generator)
        if not self._settle(generator, max_products):
            return False
        while verify and (copies := self._copies_that_matter()):
            before = self.wanted
            if self.basis.num_products >= max_products:
                return self._exact()
            num_verifying, has_room = self._room_for(math.ceil(self.basis.num_products / 2))
            if not self.basis.start_random(generator):  # the basis spans the whole space: multiply what is left
                self._exhaust(max_products)
                self._check_settled()
                return self._exact()
            outcome = self._look_for(copies, min(num_verifying, max_products - self.basis.num_products))
            if outcome == "absent":
                break
            whole = self.basis.num_products < max_products and has_room
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
        apart = residuals <= pair_slack(self.tol) / self.tol * slack
        within = residuals <= slack if self.by_residual else (errors <= slack) & apart
        return _State(values, residuals, coordinates, errors, within)

    def _settle(self, generator: torch.Generator, max_products: int) -> bool:
        """Go on until all wanted Ritz values are settled; put in a fresh vector where a chain has ended."""
        while not self._check_settled():
            if self.basis.num_products >= max_products:
                return False
            if self.basis.exhausted and not self.basis.start_random(generator):
                return False
            # an eigenproblem of m × m a step costs little while m is small; later, look less often
            num_steps = self.block_size * (1 + self.basis.num_ritz // 64)
            self._follow(min(num_steps, max_products - self.basis.num_products))
        return True

    def _follow(self, num_steps: int) -> None:
        """Take steps along the newest chain, to its end at most."""
        left = num_steps
        while left > 0 and not self.basis.exhausted:
            width = min(self.block_size, left, self.basis.num_waiting)
            if self.basis.size + width > self.max_size < self.basis.dimension:
                self._restart((self.max_size - self._num_wanted) // 2)
            self.basis.step_block(width)
            left -= width

    @property
    def _num_wanted(self) -> int:
        return self.num_top + self.num_bottom

    def _restart(self, num_more: int) -> None:
        """Keep the wanted Ritz vectors, and of those next to them up to `num_more` that there is room for."""
        if self.first is None:
            self.first = self.leading()
        waiting = self.basis.size - self.basis.num_ritz
        num_more = max(0, min(num_more, self.max_size - waiting - self._num_wanted - self.block_size))
        share = num_more * self.num_bottom // self._num_wanted
        coordinates = self.basis.ritz()[2]
        low, high = self.num_bottom + share, self.num_top + num_more - share
        self.basis.restart(np.c_[coordinates[:, :low], coordinates[:, max(low, coordinates.shape[1] - high) :]])

    def _room_for(self, num_steps: int) -> tuple[int, bool]:
        """Make room for a chain of so many steps; return how many there is room for, and whether that is all."""
        if self.basis.dimension > self.max_size < self.basis.size + 1 + num_steps:
            waiting = self.basis.size - self.basis.num_ritz
            self._restart(self.max_size - self._num_wanted - waiting - 1 - num_steps)
            self.state = self._judged()
            room = max(1, self.max_size - self.basis.size - 1)
            return min(room, num_steps), room >= num_steps
        return num_steps, True

    def leading(self) -> tuple[Tensor, float]:
        """Return the first vectors and their trace; those of before the first restart."""
        return self.basis.first(self.num_leading) if self.first is None else self.first

    def _exhaust(self, max_products: int) -> None:
        while not self.basis.exhausted and self.basis.num_products < max_products:
            self.basis.step()

    def _exact(self) -> bool:
        """Whether T is the whole operator, in another basis."""
        return self.basis.complete and self.basis.exhausted

    def _check_settled(self) -> bool:
        if self.basis.num_ritz < max(self.num_top, self.num_bottom):
            return False
        self.state = self._judged()
        size = len(self.state.values)
        chosen = np.r_[: self.num_bottom, size - self.num_top : size]
        self.wanted, settled = self.state.values[chosen], self.state.settled[chosen]
        self.basis.turn_to(self.state.coordinates[:, chosen[~settled]])
        return bool(settled.all())

    def _unchanged(self, before: np.ndarray) -> bool:
        return bool(np.allclose(self.wanted, before, rtol=0, atol=self.tol * np.abs(before).max(initial=0.0)))

    def _copies_that_matter(self) -> list[Copies]:
        """Return, for each end, what a fresh chain must be shown not to hide. A negated end is a top."""
        ends = [self.wanted[self.num_bottom :], -self.wanted[: self.num_bottom][::-1]]  # (k,) ascending each
        scale = float(np.abs(self.wanted).max(initial=0.0))
        found = []
        for sign, end, has_guard in zip((1, -1), ends, self.has_guard, strict=True):
            if len(end) == 0 or has_guard:  # a copy of the outermost one alone changes nothing
                continue
            innermost = float(end[0]) + self.tol * max(abs(float(end[0])), scale / 10)
            least = min((float(v) for v in end if v > innermost and self._met_often(v, end, scale)), default=None)
            if least is not None:
                found.append(Copies(sign, innermost, least))
        return found

    def _met_often(self, value: float, end: np.ndarray, scale: float) -> bool:
        """Whether there may be more of an eigenvalue than were met: a block of b meets it up to b times."""
        near = pair_slack(self.tol) * max(abs(value), scale / 10)
        return int((np.abs(end - value) <= near).sum()) >= self.block_size

    def _look_for(self, copies: list[Copies], num_steps: int) -> str:
        """Follow a fresh chain: "present" once it shows a value among the wanted, "absent", or "unseen" so far."""
        for taken in range(1, num_steps + 1):
            goes_on = self.basis.step()
            T = self.basis.latest(taken)
            if any(c.shown(T) for c in copies):
                return "present"
            if not goes_on or all(c.ruled_out(T, self.basis.dimension) for c in copies):
                return "absent"
        return "unseen"


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


def _least_basis(num_wanted: int, block_size: int) -> int:
    return num_wanted + 3 + 2 * block_size  # the wanted, what is not multiplied yet, ends of chains, room to move


def _max_basis(asked: int | None, num_wanted: int, operator: Operator, block_size: int) -> int:
    size, least = operator.shape[0], _least_basis(num_wanted, block_size)
    if asked is None:
        bytes_each = size * torch.finfo(operator.dtype).bits // 8
        asked = max(3 * num_wanted + 6 + 4 * block_size, BASIS_BYTES // bytes_each)
    if asked < min(least, size):
        raise ValueError(
            f"expected max_basis ≥ {least} for these eigenvalues and their guards, got {asked} in lanczos; "
            "raise it, or ask for fewer"
        )
    return min(asked, size)


def _num_locked(locked: Eigenpairs | None, num_top: int) -> int:
    if locked is None:
        return 0
    if locked.vectors is None or locked.vectors.shape[1] != len(locked.values) or len(locked.values) >= num_top:
        raise ValueError(
            f"expected locked pairs with a vector each and fewer than num_top={num_top}, got {len(locked.values)} "
            f"{'without vectors' if locked.vectors is None else 'pairs'} in lanczos; ask for more, with vectors=True"
        )
    return len(locked.values)


def _joined(locked: Eigenpairs, found: Eigenpairs) -> Eigenpairs:
    """Return both as one list, outermost first."""
    order = np.argsort(-np.r_[locked.values, found.values], kind="stable")

    def both(name: str) -> np.ndarray:
        return np.r_[getattr(locked, name), getattr(found, name)][order]

    vectors = None
    if found.vectors is not None and locked.vectors is not None:
        joined = torch.cat([locked.vectors.to(found.vectors), found.vectors], 1)
        vectors = joined[:, torch.as_tensor(order, device=joined.device)]
    return Eigenpairs(both("values"), both("errors"), both("residuals"), both("converged"), vectors)
