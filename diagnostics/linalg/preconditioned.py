"""A symmetric operator, shifted and scaled on both sides by diagonals: D^{1/2} (±A + W) D^{1/2}."""

from __future__ import annotations

import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.krylov import Operator


class PreconditionedOperator:
    """D^{1/2} (±A + W) D^{1/2} with diagonals D ≥ 0 and W, known by its products.

    It is symmetric and has the eigenvalues of D (±A + W): with D = P⁻¹ those of the preconditioned
    Hessian, with W the curvature that an L2 penalty adds.

    Args:
        operator: A, symmetric (P, P).
        diagonal: D (P,), no entry negative.
        shift: W (P,).
        sign: 1, or −1 for −A.

    Raises:
        ValueError: if a diagonal has the wrong shape, or D an entry that is negative or not finite.

    Example:
        >>> A = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> B = PreconditionedOperator(A, torch.tensor([4.0, 1.0]), torch.tensor([1.0, 0.0]))
        >>> B @ torch.tensor([1.0, 0.0])  # D^{1/2} (A + W) D^{1/2} e_1
        tensor([12.,  2.])
    """

    def __init__(self, operator: Operator, diagonal: Tensor, shift: Tensor, sign: int = 1) -> None:
        for name, value in (("diagonal", diagonal), ("shift", shift)):
            if tuple(value.shape) != (operator.shape[0],):
                raise ValueError(
                    f"expected {name} of shape ({operator.shape[0]},), got {tuple(value.shape)} in "
                    "PreconditionedOperator; give one number per parameter"
                )
        if not bool((diagonal.isfinite() & (diagonal >= 0)).all()):
            raise ValueError(
                "expected a finite diagonal without negative entries, got "
                f"min {float(diagonal.min())}, max {float(diagonal.max())} in PreconditionedOperator; check the scaling"
            )
        self._operator, self._sign = operator, sign
        self._root = diagonal.double().sqrt().to(operator.device, operator.dtype)
        self._shift = shift.to(operator.device, operator.dtype)
        self.shape, self.dtype, self.device = torch.Size(operator.shape), operator.dtype, operator.device

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Return the product with v (P,) or with the columns of V (P, k)."""
        root, shift = (d if vectors.ndim == 1 else d.unsqueeze(1) for d in (self._root, self._shift))
        scaled = root * vectors
        return root * (self._sign * (self._operator @ scaled) + shift * scaled)
