"""What a checkpoint holds, found in the nested dictionaries that training scripts save.

Scripts agree on little: the weights stand at the top or under `state_dict`, `model`, `model_state_dict` and the
like, the step under `global_step` or `step`, the optimiser under `optimizer` or in a list `optimizer_states`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainvitals.checkpoints.errors import CheckpointError

WEIGHTS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
OPTIMIZERS = ("optimizer_state_dict", "optimizer_states", "optimizer", "optimizer_state", "optim", "opt")
STEPS = ("global_step", "step", "steps", "iteration", "iter", "num_steps", "global_iteration", "train_step")
EPOCHS = ("epoch", "current_epoch", "epochs")
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # torch's own, anywhere in a name
_MAX_DEPTH = 3
_MAX_STEP = 2**62


@dataclass
class Contents:
    """One checkpoint in memory: tensors by name, on the CPU."""

    weights: dict[str, Tensor]  # parameters and buffers; the names of torch's wrappers are taken off
    step: int | None = None  # as the file says
    epoch: int | None = None
    optimizer: Mapping[str, Any] | None = field(default=None, repr=False)  # "state" and "param_groups"

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rate of each parameter group; empty where the checkpoint does not say."""
        groups = self.optimizer["param_groups"] if self.optimizer else ()
        found = [_number(group.get("lr")) for group in groups if isinstance(group, Mapping)]
        return tuple(rate for rate in found if rate is not None)

    @property
    def num_updates(self) -> int | None:
        """How many steps the optimiser counts for the parameter that it has updated most, if it counts."""
        entries = self.optimizer["state"].values() if self.optimizer else ()
        counts = [count for entry in entries if isinstance(entry, Mapping) if (count := as_count(entry.get("step")))]
        return max(counts, default=None)


def contents_of(saved: Any, where: str) -> Contents:
    """Return what a loaded object holds.

    Args:
        saved: what `torch.load` gave.
        where: the checkpoint, for messages.

    Raises:
        CheckpointError: if there are no weights in it.

    >>> found = contents_of({"model": {"module.w": torch.ones(1)}, "global_step": 5}, "an example")
    >>> list(found.weights), found.step
    (['w'], 5)
    """
    weights = _weights_in(saved)
    if not weights:
        raise CheckpointError(
            f"expected tensors by name, at the top or under one of {', '.join(WEIGHTS)}, got {_outline(saved)} in "
            f"{where}; save model.state_dict(), alone or under 'state_dict'"
        )
    optimizer = _optimizer_in(saved)
    step, epoch = _first_count(saved, STEPS), _first_count(saved, EPOCHS)
    return Contents(checked(unwrapped_names(weights), where), step, epoch, optimizer)


def checked(weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the weights if all of them are plain dense tensors.

    Raises:
        CheckpointError: for sparse, quantised and empty-handed (meta) tensors.
    """
    for name, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(
                f"expected dense weights, got {name!r} as a {tensor.layout} tensor of {tensor.dtype} on "
                f"{tensor.device} in {where}; save dense weights"
            )
    return {name: tensor.detach() for name, tensor in weights.items()}


def unwrapped_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without what DistributedDataParallel, FSDP and `torch.compile` put into their names.

    `module.` goes only if every name begins with it: a model may have a part of that name.

    >>> list(unwrapped_names({"module._orig_mod.fc.weight": torch.ones(1)}))
    ['fc.weight']
    """
    named = {".".join(part for part in name.split(".") if part not in _WRAPPERS): t for name, t in weights.items()}
    while named and all(name.startswith("module.") for name in named):
        named = {name.removeprefix("module."): tensor for name, tensor in named.items()}
    return named if len(named) == len(weights) else dict(weights)


def _weights_in(saved: Any, depth: int = 0) -> dict[str, Tensor]:
    if not isinstance(saved, Mapping) or depth > _MAX_DEPTH:
        return {}
    for key in WEIGHTS:
        if isinstance(saved.get(key), Mapping) and (found := _weights_in(saved[key], depth + 1)):
            return found
    return {name: t for name, t in saved.items() if isinstance(name, str) and isinstance(t, Tensor)
            and (depth > 0 or name not in (*STEPS, *EPOCHS))}  # fmt: skip


def _optimizer_in(saved: Any) -> Mapping[str, Any] | None:
    """Return the optimiser's state; of several the first, which is the one that training scripts save for weights."""
    for key in OPTIMIZERS if isinstance(saved, Mapping) else ():
        value = saved.get(key)
        for found in value if isinstance(value, (list, tuple)) else (value,):
            if is_optimizer_state(found):
                return found
    return None


def is_optimizer_state(value: Any) -> bool:
    """Tell what `Optimizer.state_dict()` gives from anything else."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("state"), Mapping)
        and isinstance(value.get("param_groups"), (list, tuple))
        and all(isinstance(group, Mapping) for group in value["param_groups"])
    )


def _first_count(saved: Any, keys: tuple[str, ...]) -> int | None:
    for place in _places(saved):
        for key in keys:
            if (count := as_count(place.get(key))) is not None:
                return count
    return None


def _places(saved: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the dictionaries in which scripts leave counters: the top, and `trainer_state` and the like below it."""
    if isinstance(saved, Mapping):
        yield saved
        for key in ("trainer_state", "train_state", "meta", "extra", "state"):
            if isinstance(saved.get(key), Mapping):
                yield saved[key]


def as_count(value: Any) -> int | None:
    """Return a whole number of at least 0, or None for anything else.

    >>> as_count(torch.tensor(3.0)), as_count("12"), as_count(2.5), as_count(-1)
    (3, 12, None, None)
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    number = _number(value)
    return int(number) if number is not None and 0 <= number <= _MAX_STEP and number == int(number) else None


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex() and not value.is_meta:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return value if abs(value) <= _MAX_STEP else None
    return value if value == value and abs(value) != float("inf") else None


def _outline(saved: Any) -> str:
    if isinstance(saved, Mapping):
        keys = [str(key)[:40] for key in list(saved)[:6]]
        return f"a {type(saved).__name__} with {len(saved)} entries ({', '.join(keys)}…)" if keys else "an empty one"
    return f"a {type(saved).__name__}"
