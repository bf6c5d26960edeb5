"""Hessian-vector products by double backward (Pearlmutter 1994), one graph for all products of a step.

P is the number of parameters, k the number of vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

ChunkLoss = Callable[[Sequence[Tensor]], Tensor]


class HessianOperator:
    """The Hessian of a loss, H = Σ_c s_c ∇²L_c(θ), known by its products with vectors: `H @ v`.

    Each chunk c of the probe batch has its share of the samples s_c and its mean loss L_c, so uneven
    chunks weigh what they hold. The graph of every chunk's gradient is built once, on first use, and
    serves all products until `release`; memory is that of one forward and one backward graph a chunk.

    Args:
        losses: a pair (share of samples, function of the list of parameters giving the scalar mean
            loss) for each chunk; shares add up to 1.
        parameters: detached parameters by name, in the order that the loss functions take them.

    Raises:
        ValueError: if there are no chunks or no parameters, if the shares do not add up to 1, or if
            the parameters differ in dtype or device.

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

    def __init__(self, losses: Sequence[tuple[float, ChunkLoss]], parameters: Mapping[str, Tensor]) -> None:
        _check(losses, parameters)
        self._losses = list(losses)
        self._names = list(parameters)
        self._leaves = [p.detach().requires_grad_(True) for p in parameters.values()]
        self._sizes = [p.numel() for p in self._leaves]
        self._graphs: list[list[Tensor]] | None = None  # per chunk, the share-weighted gradient with its graph
        self.num_products = 0  # Hessian-vector products so far, each over the whole probe batch

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
        return tuple(self._names)

    @property
    def gradient(self) -> Tensor:
        """The gradient of the mean loss, flat (P,), from the same graph: it costs no further pass."""
        total = torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        for gradients in self._built():
            total += self.flatten([g.detach() for g in gradients])
        return total

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Return H v for v of shape (P,), or H V for the k columns of V (P, k); k products are counted."""
        if vectors.ndim not in (1, 2) or vectors.shape[0] != self.shape[0]:
            raise ValueError(
                f"expected a vector ({self.shape[0]},) or columns ({self.shape[0]}, k), got shape "
                f"{tuple(vectors.shape)} in HessianOperator @ v; give one number per trainable parameter"
            )
        vectors = vectors.detach().to(self.device, self.dtype)
        if vectors.ndim == 1:
            return self._product(vectors.contiguous())  # strides choose kernels, and so the last bits
        if vectors.shape[1] == 0:
            return torch.zeros_like(vectors)
        return torch.stack([self._product(column.contiguous()) for column in vectors.unbind(1)], 1)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a flat vector (P,) as tensors by parameter name, each in its parameter's shape."""
        pieces = vector.split(self._sizes)
        return {n: v.view(p.shape) for n, v, p in zip(self._names, pieces, self._leaves, strict=True)}

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor per parameter, in their order, as a flat vector (P,)."""
        return torch.cat([t.reshape(-1) for t in tensors])

    def release(self) -> None:
        """Free the graphs. A later product builds them again."""
        self._graphs = None

    def _product(self, vector: Tensor) -> Tensor:
        total = torch.zeros_like(vector)
        pieces = list(self.split(vector).values())
        for gradients in self._built():
            total += self._chunk_product(gradients, pieces)
        self.num_products += 1
        return total

    def _chunk_product(self, gradients: list[Tensor], pieces: list[Tensor]) -> Tensor:
        """Differentiate ⟨g_c, v⟩. Gradients without a graph are constant in θ: they add nothing to H."""
        curved = [(g, v) for g, v in zip(gradients, pieces, strict=True) if g.requires_grad]
        if not curved:
            return torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        outputs, directions = zip(*curved, strict=True)
        return self.flatten(
            torch.autograd.grad(outputs, self._leaves, directions, retain_graph=True, materialize_grads=True)
        )

    def _built(self) -> list[list[Tensor]]:
        if self._graphs is None:
            with torch.enable_grad():
                self._graphs = [self._chunk_gradient(share, loss) for share, loss in self._losses]
        return self._graphs

    def _chunk_gradient(self, share: float, loss: ChunkLoss) -> list[Tensor]:
        value = loss(self._leaves)
        if value.numel() != 1:
            raise ValueError(
                f"expected a scalar mean loss, got shape {tuple(value.shape)} in HessianOperator; "
                "reduce the loss to its mean over the chunk's samples"
            )
        value = share * value.reshape(())
        if not value.requires_grad:  # no parameter is used: the gradient and the Hessian are zero
            return [torch.zeros_like(leaf) for leaf in self._leaves]
        return list(torch.autograd.grad(value, self._leaves, create_graph=True, materialize_grads=True))


def _check(losses: Sequence[tuple[float, ChunkLoss]], parameters: Mapping[str, Tensor]) -> None:
    if not losses or not parameters:
        raise ValueError(
            f"expected at least one chunk and one parameter, got {len(losses)} chunks and {len(parameters)} "
            "parameters in HessianOperator; check requires_grad and the probe batch"
        )
    total = sum(share for share, _ in losses)
    if abs(total - 1) > 1e-6:
        raise ValueError(
            f"expected shares of samples that add up to 1, got {total} in HessianOperator; "
            "divide each chunk's number of samples by their sum"
        )
    kinds = {(p.dtype, p.device) for p in parameters.values()}
    if len(kinds) > 1:
        raise ValueError(
            f"expected parameters of one dtype on one device, got {sorted(map(str, kinds))} in HessianOperator; "
            "cast them to one dtype first"
        )
