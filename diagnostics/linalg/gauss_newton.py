"""The generalised Gauss-Newton matrix, G = Jᵀ (∇²_z L) J, by its products."""

from __future__ import annotations

import torch
from torch import Tensor

from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.linalg.through_outputs import OutputMatrix, ThroughOutputs


class GaussNewtonOperator(ThroughOutputs):
    """G = mean over samples of J_iᵀ ∇²_z ℓ_i J_i: the Hessian without the curvature of the model's outputs.

    H − G = Σ ∂ℓ/∂z · ∇²z vanishes where the samples are fitted. For a loss that is convex in the outputs
    (cross-entropy, squared error) G is positive semidefinite. Outputs z are what the loss takes.

    Args:
        batches: the loss on each batch of the probe; their shares add up to 1.
        parameters: detached parameters by name, in the order that the losses take them.

    Source: Schraudolph 2002, §3; Martens 2020, §8.
    """

    def _output_matrix(self, batch: BatchLoss, outputs: Tensor) -> OutputMatrix:
        z = outputs.requires_grad_(True)
        loss = batch.mean_of_outputs(z)
        if not loss.requires_grad:
            return torch.zeros_like
        (slope,) = torch.autograd.grad(loss, z, create_graph=True, materialize_grads=True)
        if not slope.requires_grad:  # linear in the outputs
            return torch.zeros_like
        return lambda s: torch.autograd.grad(slope, z, s, retain_graph=True, materialize_grads=True)[0]
