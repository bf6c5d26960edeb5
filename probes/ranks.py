"""The processes of one training, and what they say to each other: over groups of their own, never over the trainer's.

Every method that talks is to be called by all ranks, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class Ranks:
    """The ranks that train one model together; the first of them leads.

    Words go over a gloo group. Tensors on a GPU go over an NCCL group where there is one, all others over gloo.
    Waiting is bounded by torch's default timeout of these backends.

    Args:
        members: their global ranks, in order; this process is one of them.
        device: where the model is.
    """

    def __init__(self, members: Sequence[int], device: torch.device) -> None:
        self.members = tuple(members)
        self.size = len(self.members)
        self.number = self.members.index(dist.get_rank())  # of this process among them
        self._words = _new_group(self.members, "gloo")
        has_nccl = device.type == "cuda" and dist.is_nccl_available()
        self.tensors = _new_group(self.members, "nccl") if has_nccl else self._words
        self._device = device if has_nccl else torch.device("cpu")

    @property
    def is_leader(self) -> bool:
        """Whether this process measures and writes."""
        return self.number == 0

    def gathered(self, value: T) -> list[T]:
        """Return what each rank gave, in their order."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self._words)
        return found

    def told(self, value: T | None = None) -> T:
        """Return what the leader gave."""
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=self.members[0], group=self._words)
        return box[0]

    def counted(self, numbers: Sequence[int]) -> list[int]:
        """Return the sums over ranks of a few whole numbers."""
        box = torch.tensor(numbers, dtype=torch.int64, device="cpu")
        dist.all_reduce(box, group=self._words)
        return box.tolist()

    def handed(self, tensor: Tensor) -> Tensor:
        """Return the leader's tensor, bit for bit; the others give one of the same shape and dtype."""
        box = tensor.detach().to(self._device, copy=True).contiguous()
        if box.numel():
            dist.broadcast(box.reshape(-1).view(torch.uint8), src=self.members[0], group=self.tensors)
        return box.to(tensor.device)

    def summed(self, tensor: Tensor) -> Tensor:
        """Return the sum over ranks; it is right on the leader alone."""
        box = tensor.detach().to(self._device, copy=True).contiguous()
        dist.reduce(box, dst=self.members[0], group=self.tensors)
        return box.to(tensor.device)


def _new_group(members: tuple[int, ...], backend: str) -> Any:
    everybody = members == tuple(range(dist.get_world_size()))
    return dist.new_group(list(members), backend=backend, use_local_synchronization=not everybody)
