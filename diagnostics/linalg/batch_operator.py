"""Symmetric matrices that are sums over the batches of the probe, known by their products with vectors.

P parameters, k vectors, n samples of a batch.
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.func import vmap

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.batch_loss import BatchLoss, crew_of, numbered
from trainvitals.diagnostics.crew import Task
from trainvitals.diagnostics.linalg.calibration import calibrated
from trainvitals.diagnostics.linalg.differentiable_twice import looks_asymmetric, refuse_once_differentiable
from trainvitals.diagnostics.linalg.finite import NonFiniteProduct
from trainvitals.diagnostics.linalg.graph_bytes import GraphCosts, graph_bytes
from trainvitals.diagnostics.linalg.products import (
    DOUBLE_BACKWARD,
    FINITE_DIFFERENCES,
    FORWARD_OVER_REVERSE,
    Products,
    is_out_of_memory,
)

T = TypeVar("T")
_ROUNDING = 1e4  # machine precisions, relative: products by two ways that differ by more are not the same
_CLEARLY = 10.0  # times what twice the step changes: finite differences say otherwise


class NotSymmetric(Missing):
    """Products turned out to be wrong after some were given away; those to come are finite differences."""



@dataclass(frozen=True)
class BatchProduct:
    """One batch's share of the matrix: v ↦ s_c A_c v, a tensor for each parameter in and out."""

    apply: Callable[[Sequence[Tensor]], Sequence[Tensor]]
    tensors: Sequence[Tensor] = ()  # what it holds with a graph behind it


class BatchOperator(abc.ABC):
    """A symmetric matrix Σ_c s_c A_c over batches c, known by its products: `A @ v` and `A @ V`.

    A batch's graph is built on first use and serves all products until `release`, or is built for each product
    where memory is bounded (see `Products`). Flat vectors (P,) live on the first parameter's device, in the
    widest dtype of all parameters; each piece is moved to its parameter and back.

    Args:
        batches: the loss on each batch; shares add up to 1.
        parameters: detached parameters by name, in the order that the losses take them.
        products: how products are made; shared by the operators of a run.

    Raises:
        ValueError: if there are no batches or no parameters, or if the shares do not add up to 1.
    """

    def __init__(
        self, batches: Sequence[BatchLoss], parameters: Mapping[str, Tensor], products: Products | None = None
    ) -> None:
        _check(batches, parameters, type(self).__name__)
        self._batches = list(batches)
        self._shapes = {name: p.shape for name, p in parameters.items()}
        self._leaves = [p.detach().requires_grad_(True) for p in parameters.values()]
        self._sizes = [p.numel() for p in self._leaves]
        self._products = Products() if products is None else products
        self._held: dict[int, BatchProduct] = {}
        self._is_fitted = self._products.max_memory_bytes is None and not self._products.rebuilds
        self._num_in_blocks = 0
        self._is_looked_through = False  # one graph, for operations marked once_differentiable
        self._earlier: tuple[Tensor, Tensor] | tuple[()] | None = ()  # the first and its product; None: checked
        self.num_products = 0  # products so far, each over the whole probe batch
        self.dtype = _widest([p.dtype for p in self._leaves])
        self.device = self._leaves[0].device
        self.shape = torch.Size([sum(self._sizes)] * 2)

    offered_block = 16  # vectors to give at once

    @abc.abstractmethod
    def _batch_product(self, batch: BatchLoss, way: str) -> BatchProduct:
        """Return a batch's products, weighted by its share, made in this way; gradients are enabled."""

    @property
    def block_size(self) -> int:
        """How many vectors share a pass; where graphs are built anew, as many as share that work."""
        return (self._products.block or 1) if not self._products.rebuilds else self.offered_block

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in the order in which they lie in flat vectors."""
        return tuple(self._shapes)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Return A v for v of shape (P,), or A V for the k columns of V (P, k); k products are counted.

        Raises:
            ValueError: for another shape.
            Missing: if memory does not suffice, or an operation has no second derivative and the way was forced.
        """
        if vectors.ndim not in (1, 2) or vectors.shape[0] != self.shape[0]:
            raise ValueError(
                f"expected a vector ({self.shape[0]},) or columns ({self.shape[0]}, k), got shape "
                f"{tuple(vectors.shape)} in {type(self).__name__} @ v; give one number per trainable parameter"
            )
        rows = vectors.detach().to(self.device, self.dtype)
        rows = rows.unsqueeze(0) if rows.ndim == 1 else rows.T
        rows = rows.contiguous()  # (k, P); strides choose kernels, and so the last bits
        found = self._recovering(lambda: self._multiplied(rows))
        self.num_products += len(rows)
        if self._products.way == FORWARD_OVER_REVERSE and not self._products.is_held_against and len(rows):
            self._hold_against_double_backward(rows[0], found[0])
        if self._earlier is not None and len(rows):
            self._check_symmetric(rows, found)
        return found[0] if vectors.ndim == 1 else found.T.contiguous()

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a flat vector (P,) as tensors by parameter name, each in its parameter's shape."""
        pieces = vector.split(self._sizes)
        return {name: v.view(shape) for (name, shape), v in zip(self._shapes.items(), pieces, strict=True)}

    def flatten(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor per parameter, in their order, as a flat vector (P,)."""
        return torch.cat([t.reshape(-1).to(self.device, self.dtype) for t in tensors])

    def release(self) -> None:
        """Free the graphs. A later product builds them again."""
        self._held.clear()

    # Products -----------------------------------------------------------------------------------

    def _multiplied(self, rows: Tensor) -> Tensor:
        """Return the products with k rows, (k, P), alone or in blocks."""
        products = self._products
        way, block = products.way, products.block
        if len(rows) > 1 and products.is_auto and way == DOUBLE_BACKWARD and not products.rebuilds:
            block = self._block(rows)
        return self._made(way, block, rows)

    def _block(self, rows: Tensor) -> int | None:
        """Return the calibrated block once enough vectors came in blocks for a calibration to be worth it."""
        self._num_in_blocks += len(rows)
        if self._num_in_blocks <= self._products.patience:
            return None
        layout = tuple(self._shapes.items()), self.dtype, self.device, len(self._batches)
        key = type(self).__name__, layout, self._products.signature
        choice, spent = calibrated(key, lambda block, some: self._made(DOUBLE_BACKWARD, block, some), rows)
        self.num_products += spent
        self._products.num_calibrating += spent
        if choice.block is not None:  # for the record; vectors that come alone go on as they are
            self._products.block = choice.block
        return choice.block

    def _made(self, way: str, block: int | None, rows: Tensor) -> Tensor:
        self._fit(way)
        return self._added(
            "product", (way, block, self._products.step_factor), rows, lambda some: self._sum_of(some, way, block, rows)
        )

    def _added(
        self, kind: str, options: tuple[object, ...], rows: Tensor | None, add: Callable[[Sequence[int]], Tensor]
    ) -> Tensor:
        """Return what `add` finds for all batches; the part of far ones comes from those who hold them."""
        indices = range(len(self._batches))
        far = [i for i in indices if self._batches[i].far is not None]
        if not far:
            return add(indices)
        batches = [self._batches[i] for i in far]
        near = [i for i in indices if i not in far]
        task = Task(kind, numbered(batches), (type(self), *options))
        return crew_of(batches).together(task, self._leaves, rows, lambda: [add(near)], lambda: [add(far)])[0]

    def part(self, way: str, block: int | None, rows: Tensor) -> Tensor:
        """Return the products with k rows, (k, P), made in this way: another process's part of `A @ V`."""
        self._fit(way)
        return self._sum_of(range(len(self._batches)), way, block, rows)

    def _sum_of(self, indices: Sequence[int], way: str, block: int | None, rows: Tensor) -> Tensor:
        total = torch.zeros_like(rows)
        for index in indices:
            self._add_batch(total, index, way, block, rows)
        return total

    def _add_batch(self, total: Tensor, index: int, way: str, block: int | None, rows: Tensor) -> None:
        """Add one batch's products to the total. A graph that is not held is gone when this returns."""
        product = self._product_of(index, way)
        with warnings.catch_warnings():
            if way == FORWARD_OVER_REVERSE or block is not None:  # torch warns of its own old code, vmap of slow rules
                warnings.simplefilter("ignore")
            self._apply(product, total, way, block, rows)

    def _apply(self, product: BatchProduct, total: Tensor, way: str, block: int | None, rows: Tensor) -> None:
        for start in range(0, len(rows), block or 1):
            part = rows[start : start + (block or 1)]
            if block is None or way == FINITE_DIFFERENCES or len(part) == 1:
                for i, row in enumerate(part, start):
                    total[i] += self.flatten(product.apply(self._pieces(row)))
            else:
                found = vmap(product.apply, randomness="same")(self._pieces(part))
                total[start : start + len(part)] += torch.cat(
                    [t.reshape(len(part), -1).to(self.device, self.dtype) for t in found], 1
                )

    def _pieces(self, rows: Tensor) -> list[Tensor]:
        """Return flat vectors (..., P) as a tensor per parameter, on its device and in its dtype."""
        parts = rows.split(self._sizes, -1)
        return [
            part.reshape(*rows.shape[:-1], *leaf.shape).to(leaf.device, leaf.dtype)
            for part, leaf in zip(parts, self._leaves, strict=True)
        ]

    def _product_of(self, index: int, way: str) -> BatchProduct:
        if self._products.rebuilds:
            return self._built(self._batches[index], way)
        if index not in self._held:
            self._products.claim(self)
            self._held[index] = self._built(self._batches[index], way)
        return self._held[index]

    def _built(self, batch: BatchLoss, way: str) -> BatchProduct:
        with torch.enable_grad():
            product = self._batch_product(batch, way)
        if way == DOUBLE_BACKWARD and not self._is_looked_through:
            refuse_once_differentiable(product.tensors)
            self._is_looked_through = True
        return product

    # What can go wrong --------------------------------------------------------------------------

    def _recovering(self, action: Callable[[], T]) -> T:
        """Return what the action gives, after taking a fallback if one is left."""
        while True:
            try:
                return action()
            except (Missing, NonFiniteProduct, ValueError):
                raise
            except Exception as error:
                self.release()
                if is_out_of_memory(error):
                    self._shrink(error)
                else:
                    self._fall_back(error)

    def _shrink(self, error: Exception) -> None:
        """Cut batches in two after memory ran out, once a run. Blocks go first."""
        if self._products.block is not None and self._products.is_auto:
            self._products.block, self._products.patience = None, 2**62
            return
        size = self._products.halve(max(batch.num_samples for batch in self._batches), error)
        self._is_fitted = True
        try:
            self._cut(size)
        except Exception as again:
            if not is_out_of_memory(again):
                raise
            self._products.halve(size, again)  # raises: it was halved before

    def _fall_back(self, error: Exception) -> None:
        """Take finite differences if gradients exist where the product failed."""
        is_derivative = isinstance(error, (RuntimeError, NotImplementedError))
        if not is_derivative or self._products.way == FINITE_DIFFERENCES or not self._has_gradient():
            raise error
        if not self._products.is_auto:
            raise Missing(self._products.impossible(error)) from error
        self._products.fall_back(error)
        self._is_fitted = self._products.max_memory_bytes is None

    def _has_gradient(self) -> bool:
        try:
            first_order(self._batches[0], self._leaves)
        except Exception:
            return False
        return True

    def _check_symmetric(self, rows: Tensor, found: Tensor) -> None:
        """Hold the first two products against each other, and what looks wrong against finite differences.

        Raises:
            NotSymmetric: if the products so far are wrong. Finite differences are taken from then on, by "auto".
        """
        assert self._earlier is not None
        pairs = [self._earlier] if self._earlier else []
        pairs += list(zip(rows[:2], found[:2], strict=True))
        self._earlier = pairs[0] if len(pairs) < 2 else None
        products = self._products
        if len(pairs) < 2 or products.way == FINITE_DIFFERENCES or not looks_asymmetric(pairs[0], pairs[1]):
            return
        vector, product = pairs[1]
        difference, coarser = (self._difference(vector, factor) for factor in (1.0, 2.0))
        if not (difference - product).norm() > _CLEARLY * (difference - coarser).norm():
            return
        error = RuntimeError("its backward pass is cut off from the graph: products are not symmetric")
        self.release()
        if not products.is_auto:
            raise NotSymmetric(products.impossible(error))
        products.fall_back(error)
        raise NotSymmetric(products.reason)

    def _hold_against_double_backward(self, vector: Tensor, product: Tensor) -> None:
        """Compare once a run: torch's forward mode is silently wrong for some models with dropout or padding.

        Raises:
            Missing: if the two products differ by more than rounding.
        """
        self._products.is_held_against = True
        try:
            other = self._by(DOUBLE_BACKWARD, vector)
        except RuntimeError:  # no double backward, then nothing to hold it against
            return
        self.num_products += 1
        tolerance = _ROUNDING * torch.finfo(self.dtype).eps * float(other.norm())
        if not float((product - other).norm()) <= tolerance and bool(other.isfinite().all()):
            self._products.is_held_against = False
            raise Missing(
                f"forward over reverse gives another product than double backward here (‖{float(product.norm()):.4g}‖ "
                f"and ‖{float(other.norm()):.4g}‖, apart by {float((product - other).norm()):.4g}); "
                "products='auto' takes double backward"
            )

    def _difference(self, vector: Tensor, factor: float) -> Tensor:
        products, self._products = self._products, self._products.with_step(factor)
        try:
            return self._by(FINITE_DIFFERENCES, vector)
        finally:
            self._products = products

    def _by(self, way: str, vector: Tensor) -> Tensor:
        """Return the product made in this way, from graphs that are not kept."""
        parts = [self._built(batch, way).apply(self._pieces(vector)) for batch in self._batches]
        return torch.stack([self.flatten(part) for part in parts]).sum(0)

    # Memory -------------------------------------------------------------------------------------

    def _fit(self, way: str) -> None:
        """Decide, within the bound, whether all graphs are held, or micro-batches' graphs built for each product."""
        if self._is_fitted:
            return
        self._is_fitted = True
        products, limit = self._products, self._products.max_memory_bytes
        if limit is None:  # memory ran out in an earlier measurement of this run
            self._cut(products.micro_batch or self._largest)
            return
        products.claim(self)
        costs = GraphCosts(lambda batch: self._bytes(batch, way), self._batches, limit)
        whole = sum(costs.of(batch.num_samples) for batch in self._batches)
        if whole <= limit and costs.measured(max(self._batches, key=lambda b: b.num_samples)) <= limit:
            products.record_bytes(whole)
            return
        products.rebuilds = True
        size, found = costs.most_samples()
        products.record_bytes(found)
        self._cut(size)

    @property
    def _largest(self) -> int:
        return max(batch.num_samples for batch in self._batches)

    def _bytes(self, batch: BatchLoss, way: str) -> int:
        """Return the bytes of a batch's graph: of the loss for finite differences, else that which holds the most."""
        if way != FINITE_DIFFERENCES:
            return graph_bytes(lambda: self._built(batch, DOUBLE_BACKWARD).tensors, self._leaves)
        with torch.enable_grad():
            return graph_bytes(lambda: [weighted_loss(batch, self._leaves)], self._leaves)

    def _cut(self, size: int) -> None:
        """Replace batches by micro-batches of at most `size` samples."""
        if size >= self._largest:
            return
        self._batches = [part for batch in self._batches for part in self._micro_batches(batch, size)]
        self._products.micro_batch = size

    def _micro_batches(self, batch: BatchLoss, size: int) -> Sequence[BatchLoss]:
        if batch.num_samples <= size:
            return [batch]
        if batch.split is None:
            raise Missing(f"memory does not suffice for the {batch.num_samples} samples of a batch that cannot be cut")
        return [replace(part, share=batch.share * part.share) for part in batch.split(size)]


def weighted_loss(batch: BatchLoss, values: Sequence[Tensor]) -> Tensor:
    """Return the share-weighted mean loss of a batch, a scalar.

    Raises:
        ValueError: if the loss is not one number.
    """
    value = batch.mean(values)
    if value.numel() != 1:
        raise ValueError(
            f"expected a scalar mean loss, got shape {tuple(value.shape)} in BatchOperator; "
            "reduce the loss to its mean over the batch's samples"
        )
    return batch.share * value.reshape(())


def first_order(batch: BatchLoss, values: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of the share-weighted loss at these parameters, with no graph left behind."""
    leaves = [value.detach().requires_grad_(True) for value in values]
    with torch.enable_grad():
        loss = weighted_loss(batch, leaves)
    if not loss.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(loss, leaves, materialize_grads=True))


def _widest(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    widest = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest


def _check(batches: Sequence[BatchLoss], parameters: Mapping[str, Tensor], operator: str) -> None:
    if not batches or not parameters:
        raise ValueError(
            f"expected at least one batch and one parameter, got {len(batches)} batches and {len(parameters)} "
            f"parameters in {operator}; check requires_grad and the probe batch"
        )
    total = sum(batch.share for batch in batches)
    if abs(total - 1) > 1e-6:
        raise ValueError(
            f"expected shares of samples that add up to 1, got {total} in {operator}; "
            "divide each batch's number of samples by their sum"
        )
