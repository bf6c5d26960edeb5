"""Hessian-vector products, by double backward on one graph for all products of a step unless told otherwise.

P is the number of parameters, k the number of vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jvp

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.linalg.batch_operator import BatchOperator, BatchProduct, first_order, weighted_loss
from trainvitals.diagnostics.linalg.finite_differences import central_difference
from trainvitals.diagnostics.linalg.products import (
    DOUBLE_BACKWARD,
    FINITE_DIFFERENCES,
    FORWARD_OVER_REVERSE,
    Products,
)

ChunkLoss = Callable[[Sequence[Tensor]], Tensor]


class HessianOperator(BatchOperator):
    """The Hessian of a loss, H = Σ_c s_c ∇²L_c(θ), known by its products with vectors: `H @ v`.

    Each chunk c of the probe batch has its share of the loss terms s_c and its mean loss L_c, so uneven
    chunks weigh what they hold. The graph of every chunk's gradient is built once, on first use, and
    serves all products until `release`; memory is that of one forward and one backward graph a chunk.

    Args:
        losses: the loss of each chunk: a `BatchLoss`, or a pair (share of samples, function of the list of
            parameters giving the scalar mean loss); shares add up to 1.
        parameters: detached parameters by name, in the order that the loss functions take them.
        products: how products are made, and within how much memory.

    Raises:
        ValueError: if there are no chunks or no parameters, or if the shares do not add up to 1.

    Source: Pearlmutter, "Fast exact multiplication by the Hessian" (1994), in reverse over reverse.

    Example:
        >>> import torch
        >>> theta = {"w": torch.tensor([1.0, 2.0])}
        >>> H = HessianOperator([(1.0, lambda p: (p[0] ** 3).sum())], theta)  # Hessian: diag(6 w)
        >>> H @ torch.tensor([1.0, 1.0])
        tensor([ 6., 12.])
        >>> H.gradient, H.num_products
        (tensor([ 3., 12.]), 1)
    """

    def __init__(
        self,
        losses: Sequence[BatchLoss | tuple[float, ChunkLoss]],
        parameters: Mapping[str, Tensor],
        products: Products | None = None,
    ) -> None:
        batches = [loss if isinstance(loss, BatchLoss) else _as_batch(*loss) for loss in losses]
        super().__init__(batches, parameters, products)

    @property
    def gradient(self) -> Tensor:
        """The gradient of the mean loss, flat (P,): from the graphs of the products where those are held."""
        return self._recovering(self._gradient)

    def _gradient(self) -> Tensor:
        way = self._products.way
        self._fit(way)
        return self._added("slope", (way, None, 1.0), None, lambda some: self._slope(some, way))

    def slope_part(self, way: str) -> Tensor:
        """Return the gradient, (P,), by the graphs of this way: another process's part of `gradient`."""
        self._fit(way)
        return self._slope(range(len(self._batches)), way)

    def _slope(self, indices: Sequence[int], way: str) -> Tensor:
        total = torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        for index in indices:
            batch = self._batches[index]
            if way == DOUBLE_BACKWARD and not self._products.rebuilds:
                total += self.flatten([g.detach() for g in self._product_of(index, way).tensors])
            else:
                total += self.flatten(first_order(batch, self._leaves))
        return total

    def _batch_product(self, batch: BatchLoss, way: str) -> BatchProduct:
        return _WAYS[way](batch, self._leaves, self._products.step_factor)


def _double_backward(batch: BatchLoss, leaves: Sequence[Tensor], _: float) -> BatchProduct:
    """Differentiate ⟨g_c, v⟩ on the graph of g_c. Gradients without a graph are constant: they add nothing."""
    loss = weighted_loss(batch, leaves)
    if not loss.requires_grad:  # no parameter is used: the gradient and the Hessian are zero
        zeros = [torch.zeros_like(leaf) for leaf in leaves]
        return BatchProduct(lambda v: zeros, zeros)
    gradients = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
    curved = [i for i, g in enumerate(gradients) if g.requires_grad]

    def apply(v: Sequence[Tensor]) -> Sequence[Tensor]:
        if not curved:
            return [torch.zeros_like(leaf) for leaf in leaves]
        outputs, directions = [gradients[i] for i in curved], [v[i] for i in curved]
        return torch.autograd.grad(outputs, leaves, directions, retain_graph=True, materialize_grads=True)

    return BatchProduct(apply, gradients)


def _forward_over_reverse(batch: BatchLoss, leaves: Sequence[Tensor], _: float) -> BatchProduct:
    """Take the gradient's derivative along v in forward mode, J_g v: no graph outlives the product."""
    values = [leaf.detach() for leaf in leaves]
    gradient = grad(partial(weighted_loss, batch))
    return BatchProduct(lambda v: jvp(gradient, (values,), (list(v),))[1])


def _finite_differences(batch: BatchLoss, leaves: Sequence[Tensor], factor: float) -> BatchProduct:
    """Take central differences of the gradient along v: first derivatives are all that it needs."""
    values = [leaf.detach() for leaf in leaves]
    return BatchProduct(lambda v: central_difference(partial(first_order, batch), values, v, factor))


_WAYS = {
    DOUBLE_BACKWARD: _double_backward,
    FORWARD_OVER_REVERSE: _forward_over_reverse,
    FINITE_DIFFERENCES: _finite_differences,
}


def _as_batch(share: float, loss: ChunkLoss) -> BatchLoss:
    def no_outputs(*_: object) -> Tensor:
        raise Missing("only the loss as a whole is known, not the outputs that it is a function of")

    return BatchLoss(share, 1, loss, no_outputs, no_outputs, no_outputs)
