"""Matrices of the form Σ_c s_c J_cᵀ M_c J_c, with J_c the Jacobian of a batch's outputs.

P parameters, n samples of a batch, k vectors; z are the outputs (n, ...).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trainvitals.diagnostics.batch_loss import BatchLoss

OutputMatrix = Callable[[Tensor], Tensor]  # symmetric in the space of the outputs: (n, ...) -> (n, ...)


class ThroughOutputs(abc.ABC):
    """A symmetric matrix Σ_c s_c Jᵀ M J, known by its products with vectors: `A @ v`.

    The graphs of a batch are built once, on first use, and serve all products: J v is the derivative by w
    of ⟨Jᵀw, v⟩, a double backward, so no operation needs a forward-mode derivative. J is never formed.

    Args:
        batches: the loss on each batch of the probe; their shares s_c add up to 1.
        parameters: detached parameters by name, in the order that the losses take them.

    Raises:
        ValueError: if there are no batches or no parameters.
    """

    def __init__(self, batches: Sequence[BatchLoss], parameters: Mapping[str, Tensor]) -> None:
        if not batches or not parameters:
            raise ValueError(
                f"expected at least one batch and one parameter, got {len(batches)} and {len(parameters)} in "
                f"{type(self).__name__}; check requires_grad and the probe batch"
            )
        self._batches = list(batches)
        self._names = tuple(parameters)
        self._leaves = [p.detach().requires_grad_(True) for p in parameters.values()]
        self._sizes = [p.numel() for p in self._leaves]
        self._graphs: list[tuple[float, Tensor, Tensor, list[Tensor], OutputMatrix]] | None = None
        self.num_products = 0

    @abc.abstractmethod
    def _output_matrix(self, batch: BatchLoss, outputs: Tensor) -> OutputMatrix:
        """Return M of a batch at its detached outputs."""

    @property
    def shape(self) -> torch.Size:
        """(P, P)."""
        return torch.Size([sum(self._sizes)] * 2)

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype, which vectors are cast to."""
        return self._leaves[0].dtype

    @property
    def device(self) -> torch.device:
        """The parameters' device, which vectors are moved to."""
        return self._leaves[0].device

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order in which they lie in flat vectors."""
        return self._names

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Return A v for v of shape (P,), or A V for the k columns of V (P, k); k products are counted."""
        if vectors.ndim not in (1, 2) or vectors.shape[0] != self.shape[0]:
            raise ValueError(
                f"expected a vector ({self.shape[0]},) or columns ({self.shape[0]}, k), got shape "
                f"{tuple(vectors.shape)} in {type(self).__name__} @ v; give one number per trainable parameter"
            )
        vectors = vectors.detach().to(self.device, self.dtype)
        if vectors.ndim == 1:
            return self._product(vectors.contiguous())
        if vectors.shape[1] == 0:
            return torch.zeros_like(vectors)
        return torch.stack([self._product(column.contiguous()) for column in vectors.unbind(1)], 1)

    def release(self) -> None:
        """Free the graphs. A later product builds them again."""
        self._graphs = None

    def _product(self, vector: Tensor) -> Tensor:
        self.num_products += 1
        pieces = [v.view(p.shape) for v, p in zip(vector.split(self._sizes), self._leaves, strict=True)]
        total = torch.zeros_like(vector)
        for share, outputs, dual, pulled, matrix in self._built():
            used = [(u, v) for u, v in zip(pulled, pieces, strict=True) if u.requires_grad]
            if not used:  # the outputs are constant in θ
                continue
            weighted = matrix(_derivative([u for u, _ in used], [v for _, v in used], dual))
            parts = torch.autograd.grad(outputs, self._leaves, weighted, retain_graph=True, materialize_grads=True)
            total += share * torch.cat([part.reshape(-1) for part in parts])
        return total

    def _built(self) -> list[tuple[float, Tensor, Tensor, list[Tensor], OutputMatrix]]:
        if self._graphs is None:
            with torch.enable_grad():
                self._graphs = [self._graph(batch) for batch in self._batches]
        return self._graphs

    def _graph(self, batch: BatchLoss) -> tuple[float, Tensor, Tensor, list[Tensor], OutputMatrix]:
        outputs = batch.outputs(self._leaves)
        dual = torch.zeros_like(outputs, requires_grad=True)  # w; Jᵀw is linear in it, so any value does
        if outputs.requires_grad:
            pulled = torch.autograd.grad(outputs, self._leaves, dual, create_graph=True, materialize_grads=True)
        else:
            pulled = [torch.zeros_like(leaf) for leaf in self._leaves]
        return batch.share, outputs, dual, list(pulled), self._output_matrix(batch, outputs.detach())


def _derivative(pulled: Sequence[Tensor], directions: Sequence[Tensor], dual: Tensor) -> Tensor:
    return torch.autograd.grad(pulled, dual, directions, retain_graph=True, materialize_grads=True)[0]
