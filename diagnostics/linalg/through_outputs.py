"""Matrices of the form Σ_c s_c J_cᵀ M_c J_c, with J_c the Jacobian of a batch's outputs.

P parameters, n samples of a batch; z are the outputs (n, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import jvp

from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.linalg.batch_operator import BatchProduct
from trainvitals.diagnostics.linalg.finite_differences import central_difference
from trainvitals.diagnostics.linalg.products import DOUBLE_BACKWARD, FORWARD_OVER_REVERSE

OutputMatrix = Callable[[Tensor], Tensor]  # symmetric in the space of the outputs: (n, ...) -> (n, ...)


def through_outputs(
    batch: BatchLoss,
    leaves: Sequence[Tensor],
    output_matrix: Callable[[BatchLoss, Tensor], OutputMatrix],
    way: str,
    step_factor: float = 1.0,
) -> BatchProduct:
    """Return the products s_c Jᵀ M J v of one batch; J is never formed.

    Jᵀ is a backward pass on one graph. J v is, by double backward, the derivative by w of ⟨Jᵀw, v⟩, so no
    operation needs a forward-mode derivative; or that derivative in forward mode; or a central difference of
    the outputs, with which no operation needs a second derivative.

    Args:
        batch: the loss on the batch.
        leaves: the parameters, with `requires_grad`.
        output_matrix: gives M of the batch at its detached outputs.
        way: one of the ways of `products`.
        step_factor: of finite differences.
    """
    outputs = batch.outputs(leaves)
    matrix = output_matrix(batch, outputs.detach())
    if not outputs.requires_grad:  # the outputs are constant in θ
        return BatchProduct(lambda v: [torch.zeros_like(leaf) for leaf in leaves])
    if way == DOUBLE_BACKWARD:
        pushed, held = _pushed_by_double_backward(outputs, leaves)
    else:
        pushed, held = _pushed_directly(batch, leaves, way, step_factor), []

    def apply(v: Sequence[Tensor]) -> Sequence[Tensor]:
        weighted = batch.share * matrix(pushed(v))
        return torch.autograd.grad(outputs, leaves, weighted, retain_graph=True, materialize_grads=True)

    return BatchProduct(apply, [outputs, *held])


Pushed = Callable[[Sequence[Tensor]], Tensor]  # v -> J v


def _pushed_by_double_backward(outputs: Tensor, leaves: Sequence[Tensor]) -> tuple[Pushed, list[Tensor]]:
    dual = torch.zeros_like(outputs, requires_grad=True)  # w; Jᵀw is linear in it, so any value does
    pulled = torch.autograd.grad(outputs, leaves, dual, create_graph=True, materialize_grads=True)
    used = [i for i, u in enumerate(pulled) if u.requires_grad]

    def pushed(v: Sequence[Tensor]) -> Tensor:
        chosen, directions = [pulled[i] for i in used], [v[i] for i in used]
        return torch.autograd.grad(chosen, dual, directions, retain_graph=True, materialize_grads=True)[0]

    return pushed, [dual, *pulled]


def _pushed_directly(batch: BatchLoss, leaves: Sequence[Tensor], way: str, step_factor: float) -> Pushed:
    values = [leaf.detach() for leaf in leaves]
    if way == FORWARD_OVER_REVERSE:
        return lambda v: jvp(batch.outputs, (values,), (list(v),))[1]

    def outputs_at(point: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [batch.outputs(point)]

    return lambda v: central_difference(outputs_at, values, v, step_factor)[0]
