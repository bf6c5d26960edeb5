"""Loss and outputs on one batch of a probe as functions of its inputs, at the present weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing


@dataclass(frozen=True)
class InputLoss:
    """The model on n samples of a probe, at changed inputs. Each call is one forward pass.

    Inputs are one floating-point tensor along the samples; whoever makes this has checked that.
    """

    num_samples: int  # n
    inputs: Tensor  # (n, ...) as they are in the probe
    targets: Tensor  # (n, ...)
    outputs: Callable[[Tensor], Tensor]  # inputs (n, ...) -> outputs (n, ...)
    mean: Callable[[Tensor], Tensor]  # inputs (n, ...) -> mean loss of the batch
    # inputs (n, ...) -> outputs (n, ...) and the loss of each sample (n,) in float64, without a graph; raises `Missing`
    # where the batch's loss is not the mean of its samples'
    outputs_and_losses: Callable[[Tensor], tuple[Tensor, Tensor]]
    of: Callable[[Tensor], InputLoss] | None = None  # places (m,) in the batch -> the same on those samples alone


def input_gradient(loss: InputLoss, inputs: Tensor) -> Tensor:
    """Return the gradient of the batch's mean loss by the inputs (n, ...), at these inputs.

    Raises:
        Missing: if the loss does not depend on the inputs, or the gradient is not finite.
    """
    leaf = inputs.detach().requires_grad_(True)
    with torch.enable_grad():
        value = loss.mean(leaf)
    return gradient_by_inputs(value, leaf)


def gradient_by_inputs(value: Tensor, leaf: Tensor, *, keeps_graph: bool = False) -> Tensor:
    """Return ∂value/∂leaf, without a trace in any `.grad`.

    Raises:
        Missing: as `input_gradient`.
    """
    if not value.requires_grad:
        raise Missing("the outputs have no gradient by the inputs")
    (found,) = torch.autograd.grad(value, leaf, allow_unused=True, retain_graph=keeps_graph)
    if found is None:
        raise Missing("the outputs have no gradient by the inputs")
    if not found.isfinite().all():
        raise Missing("the gradient by the inputs holds NaN or Inf")
    return found
