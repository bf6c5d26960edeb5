"""The generalised Gauss-Newton matrix, G = Jᵀ (∇²_z L) J, by its products."""

from __future__ import annotations

import torch
from torch import Tensor

from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.linalg.batch_operator import BatchOperator, BatchProduct
from trainvitals.diagnostics.linalg.differentiable_twice import refuse_once_differentiable
from trainvitals.diagnostics.linalg.finite_differences import central_difference
from trainvitals.diagnostics.linalg.products import FINITE_DIFFERENCES
from trainvitals.diagnostics.linalg.through_outputs import OutputMatrix, through_outputs


class GaussNewtonOperator(BatchOperator):
    """G = mean over samples of J_iᵀ ∇²_z ℓ_i J_i: the Hessian without the curvature of the model's outputs.

    H − G = Σ ∂ℓ/∂z · ∇²z vanishes where the samples are fitted. For a loss that is convex in the outputs
    (cross-entropy, squared error) G is positive semidefinite. Outputs z are what the loss takes.

    Args:
        batches: the loss on each batch of the probe; their shares add up to 1.
        parameters: detached parameters by name, in the order that the losses take them.
        products: how products are made, and within how much memory.

    Source: Schraudolph 2002, §3; Martens 2020, §8.
    """

    def _batch_product(self, batch: BatchLoss, way: str) -> BatchProduct:
        factor = self._products.step_factor
        if way == FINITE_DIFFERENCES:
            return through_outputs(batch, self._leaves, lambda b, z: _differences(b, z, factor), way, factor)
        return through_outputs(batch, self._leaves, _curvature, way, factor)


def _curvature(batch: BatchLoss, outputs: Tensor) -> OutputMatrix:
    z = outputs.requires_grad_(True)
    loss = batch.mean_of_outputs(z)
    if not loss.requires_grad:
        return torch.zeros_like
    (slope,) = torch.autograd.grad(loss, z, create_graph=True, materialize_grads=True)
    if not slope.requires_grad:  # linear in the outputs
        return torch.zeros_like
    refuse_once_differentiable([slope])
    return lambda s: torch.autograd.grad(slope, z, s, retain_graph=True, materialize_grads=True)[0]


def _differences(batch: BatchLoss, outputs: Tensor, factor: float) -> OutputMatrix:
    """Return ∇²_z L by differences of ∇_z L: the operation without a second derivative may be the loss's."""

    def slope(point: list[Tensor]) -> list[Tensor]:
        z = point[0].detach().requires_grad_(True)
        with torch.enable_grad():
            loss = batch.mean_of_outputs(z)
        if not loss.requires_grad:
            return [torch.zeros_like(z)]
        return list(torch.autograd.grad(loss, z, materialize_grads=True))

    return lambda s: central_difference(slope, [outputs], [s], factor)[0]
