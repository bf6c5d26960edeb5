"""How much memory an autograd graph holds: the storages that its nodes have saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.linalg.products import is_out_of_memory


def graph_bytes(build: Callable[[], Sequence[Tensor]], beside: Iterable[Tensor] = ()) -> int:
    """Return the bytes that the graphs behind what `build` returns keep alive, and those tensors themselves.

    Each storage counts once, whole, however many nodes saved a view of it. What is in `beside` is there anyway
    and does not count. The graph is built for the count and let go.

    Example:
        >>> x = torch.ones(1000, requires_grad=True)
        >>> graph_bytes(lambda: [x.exp().exp()], [x])  # both results are saved, 4000 bytes each
        8000
    """
    known = {_key(tensor) for tensor in beside}
    found: dict[tuple[torch.device, int], int] = {}

    def count(tensor: Tensor) -> Tensor:
        if _key(tensor) not in known:
            found[_key(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would hold its own node: a circle that is never freed

    with saved_tensors_hooks(count, lambda tensor: tensor):
        for tensor in build():
            count(tensor)
    return sum(found.values())


def _key(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()


@dataclass
class GraphCosts:
    """Bytes of a batch's graph by its number of samples n: a + b n, from the graphs of 1 and of 2.

    Args:
        bytes_of: measures the graph of a batch.
        batches: the probe's.
        limit: bytes allowed.
    """

    bytes_of: Callable[[BatchLoss], int]
    batches: Sequence[BatchLoss]
    limit: int

    def __post_init__(self) -> None:
        batch = self._largest_batch
        sizes = [n for n in (1, 2) if n <= batch.num_samples] if batch.first is not None else []
        try:
            found = [self.bytes_of(batch.first(n)) for n in sizes if batch.first is not None]
        except Exception as error:
            if is_out_of_memory(error):
                raise
            sizes, found = [], []  # a model that takes no single sample (BatchNorm in train mode) is not cut
        if len(found) < 2:
            sizes, found = [0, batch.num_samples], [0, self.bytes_of(batch)]
        self.can_be_cut = sizes[0] > 0
        self.slope = max(1, -(-(found[1] - found[0]) // (sizes[1] - sizes[0])))  # rounded up
        self.constant = max(0, found[0] - self.slope * sizes[0])

    @property
    def _largest_batch(self) -> BatchLoss:
        return max(self.batches, key=lambda batch: batch.num_samples)

    def of(self, num_samples: int) -> int:
        """Return a + b n."""
        return self.constant + self.slope * num_samples

    def measured(self, batch: BatchLoss) -> int:
        """Return the bytes of one batch's graph; the line is raised to it if it lies above."""
        if self.of(batch.num_samples) > self.limit:
            return self.of(batch.num_samples)
        found = self.bytes_of(batch)
        self.slope = max(self.slope, -(-(found - self.constant) // batch.num_samples))
        return found

    def most_samples(self) -> tuple[int, int]:
        """Return the most samples whose graph stays within the limit, in pieces of like size, and its bytes.

        Raises:
            Missing: if one sample's does not.
        """
        batch = self._largest_batch
        while True:
            most = min((self.limit - self.constant) // self.slope, batch.num_samples)
            if most < 1 or (most < batch.num_samples and not self.can_be_cut):
                least = self.of(1 if self.can_be_cut else batch.num_samples)
                what = "one sample" if self.can_be_cut else "a batch, which the model does not take in pieces,"
                raise Missing(f"the graph of {what} takes {least} bytes: max_memory_bytes={self.limit} is too little")
            size = math.ceil(batch.num_samples / math.ceil(batch.num_samples / most))
            part = batch if size == batch.num_samples or batch.first is None else batch.first(size)
            if (found := self.measured(part)) <= self.limit:
                return size, found
