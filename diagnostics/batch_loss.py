"""The loss on one batch of the probe as functions of the parameters, whole and through the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing


@dataclass(frozen=True)
class BatchLoss:
    """The loss on n samples of the train probe. Parameters are given as a list, in the snapshot's order.

    The loss splits into outputs and loss of the outputs only where the model is called as model(inputs)
    and gives one tensor: elsewhere `outputs` raises `Missing` with the reason.
    """

    share: float  # of the probe's loss terms (samples, or tokens); the shares of all batches add up to 1
    num_samples: int  # n
    mean: Callable[[Sequence[Tensor]], Tensor]  # parameters -> mean loss, one forward pass
    outputs: Callable[[Sequence[Tensor]], Tensor]  # parameters -> (n, ...), one forward pass
    mean_of_outputs: Callable[[Tensor], Tensor]  # (n, ...) -> mean loss
    loss_of_sample: Callable[[Tensor, int], Tensor]  # outputs (1, ...) of the i-th sample, i -> its loss
    first: Callable[[int], BatchLoss] | None = None  # number -> the loss on so many samples alone
    # number -> the loss on pieces of at most so many samples, with shares that add up to 1; raises `Missing` where
    # the whole batch's loss is not the weighted mean of its pieces'
    split: Callable[[int], Sequence[BatchLoss]] | None = None


def mean_loss(batches: Sequence[BatchLoss], values: Sequence[Tensor]) -> float:
    """Return the mean loss over all batches, by loss terms, at these parameters.

    Raises:
        Missing: if it is not finite.
    """
    with torch.no_grad():
        loss = sum(batch.share * float(batch.mean(values)) for batch in batches)
    if not math.isfinite(loss):
        raise Missing("the loss at the perturbed weights is not finite")
    return loss


def mean_gradient(batches: Sequence[BatchLoss], values: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of the mean loss at these parameters, batch by batch."""
    total = [torch.zeros_like(value) for value in values]
    for batch in batches:
        leaves = [value.detach().requires_grad_(True) for value in values]
        with torch.enable_grad():
            loss = batch.share * batch.mean(leaves)
        if loss.requires_grad:
            parts = torch.autograd.grad(loss, leaves, materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)]
    return total
