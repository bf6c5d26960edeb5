"""Krylov basis with full reorthogonalisation, and the projected matrix with its residuals.

P size of the operator, n basis vectors, m of them multiplied by the operator so far, l locked.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.finite import finite

CLEAN = 10.0  # machine precisions that a new vector may overlap with the basis
SLAB = 65_536  # columns of the basis that a restart copies at a time
NORM_BLOCK = 4096  # entries whose squares are added in the vector's own precision
SAFE_SQUARES = (1e-12, 1e15)  # lengths whose squares float32 holds, those of all but negligible entries too


class Operator(Protocol):
    """A symmetric matrix known by its products: `operator @ v` for v of shape (P,)."""

    @property
    def shape(self) -> Any: ...  # noqa: D102
    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    def __matmul__(self, vectors: Tensor, /) -> Tensor: ...


class KrylovBasis:
    """Orthonormal vectors Q grown by products with A, and T = QᵀAQ in float64.

    From one start vector this is Lanczos' recursion, T tridiagonal. Every new vector is made orthogonal
    to all others in up to two passes ("twice is enough", Parlett 1998, §6.9), so no ghost copies of converged
    eigenvalues appear. All projections are kept, not only α and β: further start vectors can be put in,
    and the residual of a Ritz pair (θ, Qs) stays exact, ‖Q_U T_US s‖ over the vectors U that are not
    multiplied yet. With one chain it is the classical β_m |s_mi|.

    Memory: n P numbers of the operator's dtype, on its device or another (`num_bytes`); `restart` makes n small
    again.

    Args:
        operator: symmetric, (P, P).
        breakdown: what is new in a product, relative to the largest entry of T, that is taken for zero:
            the chain ends there. Never below 100 times the rounding of the dtype. It goes into residuals.
        device: where the vectors live and are made orthogonal; the operator's unless told. On "cpu" the
            memory of an accelerator stays free, and each product goes there and back once.
        max_size: vectors that there will be at most, so that no more memory is taken than for these.
    """

    def __init__(
        self,
        operator: Operator,
        breakdown: float = 0.0,
        device: torch.device | str | None = None,
        max_size: int | None = None,
    ) -> None:
        self._operator = operator
        self._breakdown = max(breakdown, 100 * torch.finfo(operator.dtype).eps)
        device = operator.device if device is None else torch.device(device)
        self._rows = torch.empty(0, operator.shape[0], dtype=operator.dtype, device=device)  # (capacity, P)
        self._projected = np.zeros((0, 0))  # (capacity, capacity), column j is Qᵀ A q_j
        self._pending: list[int] = []  # not multiplied yet; the newest is taken first
        self._multiplied: list[int] = []
        self._locked: list[int] = []  # never multiplied
        self._max_size = min(max_size or operator.shape[0], operator.shape[0])
        self._first_chain: int | None = None  # products before the second start
        self._dropped = 0.0  # the largest remainder that was taken for zero
        self.size = 0
        self.num_products = 0  # with the operator so far, m unless there were restarts
        self.num_restarts = 0

    @property
    def num_ritz(self) -> int:
        """Ritz pairs that there are, m: vectors multiplied, or kept by a restart."""
        return len(self._multiplied)

    @property
    def num_waiting(self) -> int:
        """Vectors that are not multiplied yet."""
        return len(self._pending)

    @property
    def num_bytes(self) -> int:
        """Memory that the vectors have been given."""
        return self._rows.numel() * self._rows.element_size()

    @property
    def dimension(self) -> int:
        """P."""
        return int(self._operator.shape[0])

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to multiply: the basis spans an invariant subspace."""
        return not self._pending

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.size == self._operator.shape[0]

    def start(self, vector: Tensor) -> bool:
        """Put in a start vector (P,), made orthogonal to the basis. False if it lies in its span."""
        vector = vector.to(self._rows)
        vector = vector / torch.linalg.vector_norm(vector)
        remainder, _ = self._orthogonalised(vector)
        length = _norm(remainder)
        if self._multiplied and self._first_chain is None:
            self._first_chain = self.num_products
        if self.complete or length <= 100 * torch.finfo(vector.dtype).eps:
            return False
        # a start mostly inside the span leaves rounding noise behind: once more, at unit length
        remainder, _ = self._orthogonalised(remainder / length)
        self._pending.append(self._append(remainder / _norm(remainder)))
        return True

    def start_random(self, generator: torch.Generator) -> bool:
        """Put in a Gaussian start vector, drawn in float64 so that it is the same in every dtype."""
        vector = torch.randn(self._rows.shape[1], generator=generator, dtype=torch.float64)
        return self.start(vector)

    def lock(self, vectors: Tensor) -> None:
        """Keep the span of orthonormal columns (P, l) out of all that is started later.

        Ritz pairs are then those of A on the complement. What A mixes in from the locked span is in their
        residuals, exactly.

        Raises:
            ValueError: if something was started before.
        """
        if self.size:
            raise ValueError(f"expected an empty basis, got {self.size} vectors in KrylovBasis.lock; lock first")
        for column in vectors.unbind(1):
            if self.start(column):
                self._locked.append(self._pending.pop())

    def step(self) -> bool:
        """Multiply the newest vector and add what is new in the product.

        Returns:
            False on breakdown: the product lay in the span, the chain has ended.

        Raises:
            NonFiniteProduct: if the product holds NaN or infinity.
        """
        j = self._pending.pop()
        vector = _moved(self._rows[j], self._operator.device)
        return self._take(j, finite(self._operator @ vector))

    def step_block(self, width: int) -> None:
        """Multiply the newest vectors, up to `width` of them in one pass, and add what is new in the products.

        Raises:
            NonFiniteProduct: if a product holds NaN or infinity.
        """
        chosen = self._pending[-width:]
        if len(chosen) == 1:
            self.step()
            return
        rows = self._rows[torch.as_tensor(chosen, dtype=torch.long, device=self._rows.device)]  # (b, P)
        products = finite(self._operator @ _moved(rows, self._operator.device).T)  # (P, b)
        del self._pending[-width:]
        for j, product in zip(chosen, products.unbind(1), strict=True):
            self._take(j, product.contiguous())

    def _take(self, j: int, product: Tensor) -> bool:
        """Note the product with vector j, and add what is new in it."""
        product = _moved(product, self._rows.device)
        scale = _norm(product)
        remainder, column = self._orthogonalised(product)
        length = _norm(remainder)
        self._multiplied.append(j)
        self.num_products += 1
        # as small as this the remainder is rounding noise, and its direction means nothing
        goes_on = length > self._breakdown * max(scale, self._scale()) and not self.complete
        if goes_on:
            self._pending.append(self._append(remainder / length))
            column = np.append(column, length)
        else:
            self._dropped = max(self._dropped, length)
        self._projected[: len(column), j] = column
        return goes_on

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Ritz values (m,) ascending, residual norms (m,), and coordinates (m, m) by column.

        The residual ‖A y − θ y‖ bounds |θ − λ| for the eigenvalue λ next to θ. It counts the
        antisymmetric part of T too: the rounding of products is in it.
        """
        known = self._projected[np.ix_(self._multiplied, self._multiplied)]
        values, vectors = np.linalg.eigh((known + known.T) / 2)
        rest = self._projected[np.ix_(self._pending + self._locked, self._multiplied)] @ vectors  # (pending + l, m)
        skew = (known - known.T) / 2 @ vectors
        residuals = np.sqrt((rest**2).sum(0) + (skew**2).sum(0) + self._dropped**2)
        return values, residuals, vectors

    def rounding(self, coordinates: np.ndarray) -> np.ndarray:
        """Return ‖(T − Tᵀ) s‖/2, (k,), for unit coordinates s, (m, k): the part of residuals that is rounding.

        In exact arithmetic T is symmetric; what is not is the error of products, whose symmetric half is
        taken to be as large. It moves an eigenvalue in first order, unlike the rest of the residual.
        """
        known = self._projected[np.ix_(self._multiplied, self._multiplied)]
        return np.linalg.norm((known - known.T) / 2 @ coordinates, axis=0)

    def latest(self, num_products: int) -> np.ndarray:
        """Return T on the last vectors that were multiplied, (j, j) with j = `num_products`, symmetric."""
        chosen = self._multiplied[-num_products:]
        known = self._projected[np.ix_(chosen, chosen)]
        return (known + known.T) / 2

    def quadrature(self, num_products: int) -> tuple[np.ndarray, np.ndarray]:
        """Return nodes (j,) and weights (j,) of Gauss' quadrature for the start vector's spectral measure.

        They are the eigenvalues of T after the first j = `num_products` steps of one chain, and the squares
        of the first components of its eigenvectors (Golub and Welsch 1969).
        """
        chosen = self._multiplied[:num_products]
        known = self._projected[np.ix_(chosen, chosen)]
        nodes, vectors = np.linalg.eigh((known + known.T) / 2)
        return nodes, vectors[0] ** 2

    def restart(self, coordinates: np.ndarray) -> None:
        """Keep of the multiplied vectors the span of these p Ritz vectors, orthonormal columns (m, p), alone.

        Vectors not multiplied yet and locked ones stay, so A Y = Y Θ + U T_UY holds as before and residuals stay
        exact (thick restart). The kept vectors count as multiplied: p Ritz pairs, `num_products` as before.
        `first`, `latest` and `quadrature` speak of one chain, and end with it.

        Source: Wu and Simon 2000, §2.
        """
        waiting, p = self._pending + self._locked, coordinates.shape[1]
        size, known = p + len(waiting), self._projected[np.ix_(self._multiplied, self._multiplied)]
        rest = self._projected[np.ix_(waiting, self._multiplied)]
        self._rotate(coordinates, waiting)
        self._projected[:] = 0
        self._projected[:p, :p] = coordinates.T @ known @ coordinates
        self._projected[p:size, :p] = rest @ coordinates
        self._multiplied = list(range(p))
        self._pending, self._locked = list(range(p, p + len(self._pending))), list(range(p + len(self._pending), size))
        self.size = size
        self.num_restarts += 1

    def turn_to(self, coordinates: np.ndarray) -> None:
        """Take next the vectors on which the residuals of these Ritz vectors, (m, k), lie most."""
        if len(self._pending) > 1:
            rest = self._projected[np.ix_(self._pending, self._multiplied)] @ coordinates  # (pending, k)
            order = (rest**2).sum(1).argsort(kind="stable")
            self._pending = [self._pending[i] for i in order]

    def first(self, num_products: int) -> tuple[Tensor, float]:
        """Return copies of the first vectors of the first chain, (j, P), on the operator's device, and tr QᵀAQ on them.

        j = `num_products`, or less if that chain has fewer. They are the same however a run goes on.
        """
        chain = self.num_products if self._first_chain is None else self._first_chain
        chosen = self._multiplied[: min(num_products, chain)]
        rows = self._rows[torch.as_tensor(chosen, dtype=torch.long, device=self._rows.device)]
        return _moved(rows, self._operator.device), float(np.trace(self._projected[np.ix_(chosen, chosen)]))

    def newest(self) -> Tensor | None:
        """Return a copy of the newest vector not multiplied yet, (P,), or None."""
        return self._rows[self._pending[-1]].clone() if self._pending else None

    def vectors(self, coordinates: np.ndarray) -> Tensor:
        """Return Q_S C (P, k) for coordinates C (m, k) as `ritz` gives them, or gave them m products in."""
        chosen = self._multiplied[: len(coordinates)]
        rows = self._rows[torch.as_tensor(chosen, dtype=torch.long, device=self._rows.device)]  # on the basis' device
        return rows.T @ torch.as_tensor(coordinates).to(rows)

    def _orthogonalised(self, vector: Tensor) -> tuple[Tensor, np.ndarray]:
        """Return what is left of `vector` beside the basis, and its coordinates (n,) in the basis.

        The second pass is measured always, and taken off where it is more than rounding: each reading of the basis
        costs as much as arithmetic with it.
        """
        rows = self._rows[: self.size]
        first = rows @ vector
        vector = vector - first @ rows
        second = rows @ vector
        if _norm(second) > CLEAN * torch.finfo(vector.dtype).eps * _norm(vector):
            vector = vector - second @ rows
        return vector, (first.double() + second.double()).cpu().numpy()

    def _rotate(self, coordinates: np.ndarray, waiting: list[int]) -> None:
        """Put Ritz vectors and then the waiting ones into the first rows; in slabs, for a second copy is too large."""
        device = self._rows.device
        chosen, kept = (torch.as_tensor(rows, dtype=torch.long, device=device) for rows in (self._multiplied, waiting))
        turn = torch.as_tensor(np.ascontiguousarray(coordinates.T)).to(self._rows)  # (p, m)
        for slab in self._rows.split(SLAB, dim=1):
            slab[: len(turn) + len(kept)] = torch.cat([turn @ slab[chosen], slab[kept]])

    def _append(self, vector: Tensor) -> int:
        if self.size == len(self._rows):
            self._grow()
        self._rows[self.size] = vector
        self.size += 1
        return self.size - 1

    def _grow(self) -> None:
        capacity = max(min(max(16, 3 * self.size // 2), self._max_size), self.size + 1)
        rows = self._rows.new_empty(capacity, self._rows.shape[1])
        rows[: self.size] = self._rows
        projected = np.zeros((capacity, capacity))
        projected[: self.size, : self.size] = self._projected
        self._rows, self._projected = rows, projected

    def _scale(self) -> float:
        return float(np.abs(self._projected).max(initial=0.0))


def _moved(vector: Tensor, device: torch.device) -> Tensor:
    return vector.to(device)


def _norm(vector: Tensor) -> float:
    """Return ‖v‖ by blocks: one float32 sum of a million squares is off by 1e-5, float64 takes 30 times as long."""
    whole = len(vector) - len(vector) % NORM_BLOCK
    blocks = torch.linalg.vector_norm(vector[:whole].reshape(-1, NORM_BLOCK), dim=1).double()
    rest = torch.linalg.vector_norm(vector[whole:], dtype=torch.float64)
    length = float(torch.linalg.vector_norm(torch.cat([blocks, rest.reshape(1)])))
    if SAFE_SQUARES[0] < length < SAFE_SQUARES[1]:
        return length
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))  # squares may be too small or large for float32
