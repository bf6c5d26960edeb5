"""The empirical Fisher matrix, F = mean g_i g_iᵀ, by its products and without the N × P gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.linalg.batch_operator import BatchOperator, BatchProduct
from trainvitals.diagnostics.linalg.through_outputs import OutputMatrix, through_outputs


class FisherOperator(BatchOperator):
    """F = (1/N) Σ g_i g_iᵀ with g_i = J_iᵀ r_i, r_i = ∂ℓ_i/∂z_i: one double backward a product.

    g_i is the gradient of the i-th sample's own loss term, with the labels of the data (the empirical
    Fisher, not the Fisher of the model's distribution).

    Args:
        batches: the loss on each batch of the probe; their shares add up to 1.
        parameters: detached parameters by name, in the order that the losses take them.
        products: how products are made, and within how much memory.

    Raises:
        Missing: at the first product, if the loss is not the mean of its samples' losses.

    Source: Kunstner, Balles, Hennig 2019, §2.
    """

    def _batch_product(self, batch: BatchLoss, way: str) -> BatchProduct:
        return through_outputs(batch, self._leaves, _second_moment, way, self._products.step_factor)


def _second_moment(batch: BatchLoss, outputs: Tensor) -> OutputMatrix:
    if outputs.ndim == 0 or len(outputs) != batch.num_samples:
        raise Missing(f"outputs of shape {tuple(outputs.shape)} for {batch.num_samples} samples: not one a sample")
    z = outputs.requires_grad_(True)
    losses = torch.stack([batch.loss_of_sample(z[i : i + 1], i) for i in range(batch.num_samples)])  # (n,)
    _check_mean(float(batch.mean_of_outputs(z).detach()), float(losses.detach().double().mean()))
    if not losses.requires_grad:
        return torch.zeros_like
    (slopes,) = torch.autograd.grad(losses.sum(), z, materialize_grads=True)  # r (n, ...)
    rows = slopes.reshape(len(slopes), -1)

    def matrix(s: Tensor) -> Tensor:
        inner = (rows * s.reshape(len(s), -1)).sum(1, keepdim=True)  # g_i · v
        return (rows * inner).view_as(s) / batch.num_samples

    return matrix


def _check_mean(whole: float, mean_of_samples: float) -> None:
    if abs(whole - mean_of_samples) > 1e-3 * max(abs(whole), abs(mean_of_samples), 1e-6):
        raise Missing(
            f"the batch's loss ({whole:.6g}) is not the mean of its samples' losses ({mean_of_samples:.6g}): "
            "a sum or class weights make them differ"
        )
