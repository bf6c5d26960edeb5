"""How much memory an autograd graph holds: the storages that its nodes have saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


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
