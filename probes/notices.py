"""What is odd and not wrong about what a watch was given: said once, as a warning and in the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves


def foreign_optimizer(model: nn.Module, optimizer: Optimizer) -> str | None:
    """Return what to say of an optimiser that holds nothing of the model; None if it holds something.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> foreign_optimizer(model, torch.optim.SGD(model.parameters(), 0.1)) is None
        True
    """
    own = {id(p) for p in model.parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if not held or any(id(p) in own for p in held):
        return None
    return (
        f"expected an optimiser that holds parameters of the model, got {type(optimizer).__name__} with {len(held)} "
        "tensors, none of them the model's, in trainvitals.watch; its steps are counted, but they do not train this "
        "model: make it from model.parameters() after the model was wrapped or replaced, or pass the one that does"
    )


def other_device(sources: Mapping[str, Any], device: torch.device, call: str) -> str | None:
    """Return what to say of probe batches that are not where the model is; None if all are.

    Loaders are not looked into: their batches are in the host's memory everywhere.

    Args:
        sources: what the user gave, by argument.
        device: of the model's trainable parameters.
        call: the public call, for the message.

    Example:
        >>> other_device({"train": (torch.zeros(2),)}, torch.device("cpu"), "trainvitals.watch") is None
        True
    """
    found = {name: elsewhere for name, source in sources.items() if (elsewhere := _elsewhere(source, device))}
    if not found:
        return None
    words = " and ".join(f"{name} on {', '.join(places)}" for name, places in found.items())
    return (
        f"expected probe batches on {device}, where the model is, got {words} in {call}; "
        f"they are copied there once: pass them on {device} to leave this out"
    )


def _elsewhere(source: Any, device: torch.device) -> list[str]:
    if not isinstance(source, (Tensor, tuple, list, Mapping)):
        return []
    places = {leaf.device for leaf in _tensors(source)}
    return sorted(str(place) for place in places if place != device)


def _tensors(source: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(source) if isinstance(leaf, Tensor))
