"""A plain copy of a model whose parameters are spread over ranks (FSDP2): same modules, whole weights, no hooks.

Probe passes run on it, so that nothing of the wrapped model is ever called: its hooks would gather weights, and
prefetch, and expect a backward pass.
"""

from __future__ import annotations

import collections
import copy
from typing import Any

import torch
from torch import Tensor, nn

from trainvitals.probes.bystander import belongs_to_torch

_PLAIN = (bool, int, float, str, type(None))


class Twin:
    """The plain copy, and how it follows the model.

    Args:
        model: the model in training.
        wrapped: the class that wrapping has put before a module's own.
        device: where passes run.
    """

    def __init__(self, model: nn.Module, wrapped: type, device: torch.device) -> None:
        self._original = model
        memo: dict[int, Any] = {}
        self._pairs: list[tuple[nn.Module, nn.Module]] = []
        for module in model.modules():
            cls = _own_class(module, wrapped)
            shell = memo[id(module)] = cls.__new__(cls)
            self._pairs.append((module, shell))
        for p in model.parameters():
            whole = torch.empty(0, dtype=p.dtype, device=device)
            memo[id(p)] = nn.Parameter(whole, requires_grad=p.requires_grad)
        for module, shell in self._pairs:
            for key, value in vars(module).items():
                if not key.startswith("__"):  # where torch keeps what wrapping needs
                    shell.__dict__[key] = _copied(key, value, memo)
        self.model: nn.Module = memo[id(model)]
        self._parameters = dict(self.model.named_parameters())

    def follow(self, weights: dict[str, Tensor]) -> None:
        """Take whole weights by name, and buffers, flags and plain attributes as the model has them now."""
        thawed = {name: p.requires_grad for name, p in self._original.named_parameters()}
        for name, parameter in self._parameters.items():
            parameter.data = weights[name]
            parameter.requires_grad_(thawed[name])
        for module, shell in self._pairs:
            shell._buffers.update(module._buffers)  # the bystander lends clones
            for key, value in vars(module).items():
                if isinstance(value, _PLAIN) and not key.startswith("__"):
                    shell.__dict__[key] = value

    def forget(self) -> None:
        """Let go of the weights."""
        for parameter in self._parameters.values():
            parameter.data = parameter.data.new_empty(0)


def _own_class(module: nn.Module, wrapped: type) -> type[nn.Module]:
    line = type(module).__mro__
    return line[line.index(wrapped) + 1] if wrapped in line else line[0]


def _copied(key: str, value: Any, memo: dict[int, Any]) -> Any:
    if key.endswith("_hooks") and isinstance(value, dict):
        value = collections.OrderedDict((k, hook) for k, hook in value.items() if belongs_to_torch(hook))
    if isinstance(value, dict) and key in ("_modules", "_parameters", "_buffers"):
        # entries that are in the memo are the twin's own; buffers are lent by the bystander
        return {name: memo.get(id(part), part) for name, part in value.items()}
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # a process group, a generator: shared
        return value
