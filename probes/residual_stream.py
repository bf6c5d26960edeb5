"""Residual additions, x + f(x), as they are made: the squares of both sides are summed, and nothing else is kept.

Every tensor of a forward pass is given the set of tensors it was computed from and the number of layers on the way.
An addition of two tensors of one shape is residual if one was computed from the other through at least one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from trainvitals.diagnostics.signal_sums import BranchSums
from trainvitals.probes.module_recorder import ModuleRecorder

_ADDITIONS = ("add", "add_", "__add__", "__radd__", "__iadd__")
_LAYERS = (
    "linear", "bilinear", "addmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "matmul", "__matmul__", "bmm", "baddbmm", "einsum", "embedding", "lstm", "gru", "rnn_tanh",
    "rnn_relu", "scaled_dot_product_attention", "multi_head_attention_forward",
)  # fmt: skip
_SAME = ("to", "type", "type_as", "float", "double", "clone", "contiguous", "view", "reshape", "detach")


@dataclass(frozen=True)
class _Origin:
    """Where a tensor comes from: sets are bits of whole numbers."""

    own: int  # its own bit
    ancestors: int  # bits of all that it was computed from, and its own
    depth: int  # most layers on a way to it


class ResidualCapture:
    """Collects the residual additions of a probe's batches.

    Args:
        model: the module to be called inside `capturing()`, already lent by the bystander.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.branches: dict[str, BranchSums] = {}  # by module name, in the order of the forward pass

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Add what one forward pass computes. A failed pass adds nothing."""
        recorder = _Recorder(self._model)
        with recorder.recording():
            yield
        for name, sums in recorder.branches.items():
            self.branches[name] = self.branches[name] + sums if name in self.branches else sums


class _Recorder(ModuleRecorder):
    """Records one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._origins: Any = WeakIdKeyDictionary()  # tensor -> _Origin
        self._num_seen = 0
        self.branches: dict[str, BranchSums] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if name in _ADDITIONS and len(operands) == 2:
            self._see_addition(operands[0], operands[1], kwargs)  # before it is made: it may write over the stream
        known = [self._origins[x] for x in operands if x in self._origins]
        output = func(*args, **kwargs)
        for result in tree_leaves(output):
            if isinstance(result, Tensor):
                self._origins[result] = known[0] if name in _SAME and len(known) == 1 else self._new(name, known)
        return output

    def _new(self, name: str, known: list[_Origin]) -> _Origin:
        self._num_seen += 1
        own = ancestors = 1 << self._num_seen
        for origin in known:
            ancestors |= origin.ancestors
        depth = max((origin.depth for origin in known), default=0) + (name in _LAYERS)
        return _Origin(own, ancestors, depth)

    def _see_addition(self, one: Tensor, other: Tensor, options: Mapping[str, Any]) -> None:
        if one.shape != other.shape or not (one.is_floating_point() and other.is_floating_point()):
            return
        origins = self._origin(one), self._origin(other)
        for stream, branch, its, others in ((one, other, *origins), (other, one, *origins[::-1])):
            if its is not None and others is not None and its.own & others.ancestors and others.depth > its.depth:
                factor = options.get("alpha", 1) if branch is other else 1
                self._add(stream, branch, factor)
                return

    def _origin(self, tensor: Tensor) -> _Origin | None:
        return self._origins.get(tensor)

    def _add(self, stream: Tensor, branch: Tensor, factor: float) -> None:
        name, number = self._stack[-1] if self._stack else "model", 1
        unused = name
        while unused in self.branches:
            number += 1
            unused = f"{name}#{number}"
        with torch.no_grad():
            squares = [x.detach().double().square().sum() for x in (branch, stream)]
        self.branches[unused] = BranchSums(squares[0] * float(factor) ** 2, squares[1])
