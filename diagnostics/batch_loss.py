"""The loss on one batch of the probe as functions of the parameters, whole and through the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.crew import Crew, Far, Task


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
    far: Far | None = None  # another process that does this batch's part of sums; its pieces are done here


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
    far = [batch for batch in batches if batch.far is not None]
    if not far:
        return _gradient_here(batches, values)
    near = [batch for batch in batches if batch.far is None]
    task, crew = Task("gradient", numbered(far)), crew_of(far)
    return crew.together(
        task, values, None, lambda: _gradient_here(near, values), lambda: _gradient_here(far, values)
    )


def numbered(far: Sequence[BatchLoss]) -> tuple[tuple[int, float], ...]:
    """Return the numbers and the shares of batches that another process holds."""
    return tuple((batch.far.number, batch.share) for batch in far if batch.far is not None)


def crew_of(far: Sequence[BatchLoss]) -> Crew:
    """Return those who hold these batches."""
    assert far[0].far is not None
    return far[0].far.crew


def _gradient_here(batches: Sequence[BatchLoss], values: Sequence[Tensor]) -> list[Tensor]:
    total = [torch.zeros_like(value) for value in values]
    for batch in batches:
        leaves = [value.detach().requires_grad_(True) for value in values]
        with torch.enable_grad():
            loss = batch.share * batch.mean(leaves)
        if loss.requires_grad:
            parts = torch.autograd.grad(loss, leaves, materialize_grads=True)
            total = [a + b for a, b in zip(total, parts, strict=True)]
    return total
