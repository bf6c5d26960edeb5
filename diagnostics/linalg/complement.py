"""An operator on the complement of known vectors: what is left of it once they are deflated.

P size of the operator, j deflated vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.krylov import Operator


class Complement:
    """(I − QᵀQ) A (I − QᵀQ) for orthonormal rows Q, known by its products: `C @ v`, one product with A each.

    With Ritz vectors of A as Q, of residuals r_i, A is C plus the Ritz values on Q up to a coupling of norm
    ≤ √Σr_i²: no eigenvalue differs by more, however close to each other they lie.

    Args:
        operator: A, symmetric, (P, P).
        rows: Q (j, P), orthonormal; none for A itself.
        scale: the largest |eigenvalue| on Q. A product that is rounding beside it is zero: where nothing but zeros
            is left, a Krylov space would otherwise grow in noise.

    Source: Parlett, The Symmetric Eigenvalue Problem (1998), §11.5 (residual bounds of a subspace).

    Example:
        >>> A = torch.diag(torch.tensor([5.0, 2.0, 1.0]))
        >>> Complement(A, torch.tensor([[1.0, 0.0, 0.0]])) @ torch.ones(3)
        tensor([0., 2., 1.])
    """

    def __init__(self, operator: Operator, rows: Tensor, scale: float = 0.0) -> None:
        self._operator = operator
        self._scale = scale
        self.rows = rows
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device

    def __matmul__(self, vector: Tensor) -> Tensor:
        """Return (I − QᵀQ) A (I − QᵀQ) v, (P,)."""
        product = self.remove(self._operator @ self.remove(vector))
        noise = 100 * torch.finfo(self.dtype).eps * self._scale * _norm(vector)
        return product if self._scale == 0 or not _norm(product) <= noise else torch.zeros_like(product)

    def remove(self, vector: Tensor) -> Tensor:
        """Return (I − QᵀQ) v, (P,), in two passes: one leaves rounding of the size of what it takes away."""
        if len(self.rows) == 0:
            return vector
        for _ in range(2):
            vector = vector - (self.rows @ vector) @ self.rows
        return vector

    def with_more(self, rows: Tensor, values: np.ndarray) -> Complement:
        """Return the complement of further unit rows (k, P) too, which lie in this one, with their eigenvalues (k,)."""
        scale = max(self._scale, float(np.abs(values).max(initial=0.0)))
        return Complement(self._operator, torch.cat([self.rows, rows]), scale)


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
