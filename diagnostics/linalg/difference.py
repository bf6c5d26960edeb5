"""The difference of two operators, known by its products."""

from __future__ import annotations

import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.krylov import Operator


class DifferenceOperator:
    """A − B, both (P, P): with the Hessian and the Gauss-Newton matrix, the part that the residuals make.

    Args:
        minuend: A.
        subtrahend: B.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> D = DifferenceOperator(torch.eye(2), torch.ones(2, 2))
        >>> D @ torch.tensor([1.0, 0.0])
        tensor([ 0., -1.])
    """

    def __init__(self, minuend: Operator, subtrahend: Operator) -> None:
        if tuple(minuend.shape) != tuple(subtrahend.shape):
            raise ValueError(
                f"expected operators of one shape, got {tuple(minuend.shape)} and {tuple(subtrahend.shape)} in "
                "DifferenceOperator; build both on the same parameters"
            )
        self._minuend, self._subtrahend = minuend, subtrahend
        self.shape, self.dtype, self.device = torch.Size(minuend.shape), minuend.dtype, minuend.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Return the product with v (P,) or with the columns of V (P, k)."""
        return self._minuend @ vectors - self._subtrahend @ vectors
