"""Krylov basis with full reorthogonalisation, and the projected matrix with its residuals.

P size of the operator, n basis vectors, m of them multiplied by the operator so far.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.finite import finite


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
    to all others in two passes ("twice is enough", Parlett 1998, §6.9), so no ghost copies of converged
    eigenvalues appear. All projections are kept, not only α and β: further start vectors can be put in,
    and the residual of a Ritz pair (θ, Qs) stays exact, ‖Q_U T_US s‖ over the vectors U that are not
    multiplied yet. With one chain it is the classical β_m |s_mi|.

    Memory: n P numbers of the operator's dtype, on its device.

    Args:
        operator: symmetric, (P, P).
        breakdown: what is new in a product, relative to the largest entry of T, that is taken for zero:
            the chain ends there. Never below 100 times the rounding of the dtype. It goes into residuals.
    """

    def __init__(self, operator: Operator, breakdown: float = 0.0) -> None:
        self._operator = operator
        self._breakdown = max(breakdown, 100 * torch.finfo(operator.dtype).eps)
        self._rows = torch.empty(0, operator.shape[0], dtype=operator.dtype, device=operator.device)  # (capacity, P)
        self._projected = np.zeros((0, 0))  # (capacity, capacity), column j is Qᵀ A q_j
        self._pending: list[int] = []  # not multiplied yet; the newest is taken first
        self._multiplied: list[int] = []
        self._first_chain: int | None = None  # products before the second start
        self._dropped = 0.0  # the largest remainder that was taken for zero
        self.size = 0

    @property
    def num_products(self) -> int:
        """Products with the operator so far, m."""
        return len(self._multiplied)

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
        if self.size and self._first_chain is None:
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

    def step(self) -> bool:
        """Multiply the newest vector and add what is new in the product.

        Returns:
            False on breakdown: the product lay in the span, the chain has ended.

        Raises:
            NonFiniteProduct: if the product holds NaN or infinity.
        """
        j = self._pending.pop()
        product = finite(self._operator @ self._rows[j])
        scale = _norm(product)
        remainder, column = self._orthogonalised(product)
        length = _norm(remainder)
        self._multiplied.append(j)
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
        rest = self._projected[np.ix_(self._pending, self._multiplied)] @ vectors  # (pending, m)
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

    def turn_to(self, coordinates: np.ndarray) -> None:
        """Take next the vector on which the residuals of these Ritz vectors, (m, k), lie most."""
        if len(self._pending) > 1:
            rest = self._projected[np.ix_(self._pending, self._multiplied)] @ coordinates  # (pending, k)
            self._pending.append(self._pending.pop(int((rest**2).sum(1).argmax())))

    def first(self, num_products: int) -> tuple[Tensor, float]:
        """Return copies of the first vectors of the first chain, (j, P), and tr QᵀAQ on them.

        j = `num_products`, or less if that chain has fewer. They are the same however a run goes on.
        """
        chain = self.num_products if self._first_chain is None else self._first_chain
        chosen = self._multiplied[: min(num_products, chain)]
        rows = self._rows[torch.as_tensor(chosen, dtype=torch.long, device=self._rows.device)]
        return rows, float(np.trace(self._projected[np.ix_(chosen, chosen)]))

    def vectors(self, coordinates: np.ndarray) -> Tensor:
        """Return Q_S C (P, k) for coordinates C (m, k) as `ritz` gives them, or gave them m products in."""
        chosen = self._multiplied[: len(coordinates)]
        rows = self._rows[torch.as_tensor(chosen, dtype=torch.long, device=self._rows.device)]
        return rows.T @ torch.as_tensor(coordinates).to(rows)

    def _orthogonalised(self, vector: Tensor) -> tuple[Tensor, np.ndarray]:
        """Return what is left of `vector` beside the basis, and its coordinates (n,) in the basis."""
        rows = self._rows[: self.size]
        first = rows @ vector
        vector = vector - first @ rows
        second = rows @ vector
        return vector - second @ rows, (first.double() + second.double()).cpu().numpy()

    def _append(self, vector: Tensor) -> int:
        if self.size == len(self._rows):
            self._grow()
        self._rows[self.size] = vector
        self.size += 1
        return self.size - 1

    def _grow(self) -> None:
        capacity = min(max(16, 3 * self.size // 2), self._rows.shape[1])
        rows = self._rows.new_empty(capacity, self._rows.shape[1])
        rows[: self.size] = self._rows
        projected = np.zeros((capacity, capacity))
        projected[: self.size, : self.size] = self._projected
        self._rows, self._projected = rows, projected

    def _scale(self) -> float:
        return float(np.abs(self._projected).max(initial=0.0))


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
