"""The optimiser as a checkpoint has it: its class from its hyperparameters, its state by the parameters' order.

A state dictionary names neither the class nor the parameters. torch's own SGD, Adam, AdamW and RMSprop are told by
their hyperparameters; others need the function that makes the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MakeOptimizer = Callable[[nn.Module], Optimizer]


class UnknownOptimizer(ValueError):  # noqa: N818  (a reason, shown as it stands)
    """The optimiser of a checkpoint cannot be told from what it saved."""


def optimizer_of(model: nn.Module, saved: Mapping[str, Any], make: MakeOptimizer | None = None) -> Optimizer:
    """Return an optimiser of the model's parameters with the saved hyperparameters and state.

    Args:
        model: with the checkpoint's weights.
        saved: what `Optimizer.state_dict()` gave.
        make: makes the optimiser as the training script did; needed for classes that are not told by themselves,
            and for parameter groups in another order than the model's.

    Raises:
        UnknownOptimizer: if the class cannot be told, or the state does not fit the parameters.
    """
    groups = [dict(group) for group in saved["param_groups"]]
    if make is not None:
        optimizer = make(model)
        try:
            optimizer.load_state_dict({"state": dict(saved["state"]), "param_groups": groups})
        except (ValueError, KeyError, RuntimeError) as error:
            raise UnknownOptimizer(f"its state does not fit the optimizer that was made: {error}") from error
        return optimizer
    cls = _class_of(groups)
    members = _members(model, groups)
    optimizer = cls(
        [{**_options(group), "params": list(own.values())} for group, own in zip(groups, members, strict=True)]
    )
    state = {str(key): value for key, value in saved["state"].items()}
    for group, own in zip(groups, members, strict=True):
        for key, parameter in zip(group["params"], own.values(), strict=True):
            if str(key) in state:
                optimizer.state[parameter] = _entry(state[str(key)], parameter)
    return optimizer


def _class_of(groups: Sequence[Mapping[str, Any]]) -> Callable[..., Optimizer]:
    keys = set(groups[0]) if groups else set()
    if {"nesterov", "dampening", "momentum"} <= keys:
        return torch.optim.SGD
    if {"alpha", "centered", "eps"} <= keys:
        return torch.optim.RMSprop
    if {"betas", "eps", "amsgrad"} <= keys and "momentum_decay" not in keys:
        decoupled = {group.get("decoupled_weight_decay") for group in groups}
        if decoupled == {True}:
            return torch.optim.AdamW
        if decoupled == {False} or all(group.get("weight_decay") == 0 for group in groups):
            return torch.optim.Adam
        raise UnknownOptimizer("it may be Adam or AdamW, which differ by what their weight decay does")
    raise UnknownOptimizer(f"no optimizer of torch's that is known here has the hyperparameters {sorted(keys)[:12]}")


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the constructor takes; switches of the implementation change no number."""
    left_out = {"params", "param_names", "fused", "foreach", "capturable", "differentiable", "decoupled_weight_decay",
                "initial_lr"}  # fmt: skip
    return {key: value for key, value in group.items() if key not in left_out}


def _members(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, nn.Parameter]]:
    """Return the parameters of each group by name: by saved names, else in the model's order."""
    by_name = dict(model.named_parameters())
    keys = [key for group in groups for key in group.get("params", ())]
    named = [name for group in groups for name in group.get("param_names", ())]
    if not named and all(isinstance(key, str) and not key.isdigit() for key in keys):
        named = [str(key) for key in keys]
    if named:
        own = [name.removeprefix("module.") for name in named]
        if len(own) != len(keys) or any(name not in by_name for name in own):
            raise UnknownOptimizer("the parameters that it names are not the model's")
        order = iter(own)
    else:
        trainable = [name for name, p in by_name.items() if p.requires_grad]
        order = iter(list(by_name) if len(keys) == len(by_name) else trainable if len(keys) == len(trainable) else ())
        if len(keys) not in (len(by_name), len(trainable)):
            raise UnknownOptimizer(f"it holds {len(keys)} parameters, the model {len(by_name)}")
        if len(groups) > 1:
            raise UnknownOptimizer("which parameters are in which of its groups is not saved")
    return [{name: by_name[name] for _, name in zip(group["params"], order, strict=False)} for group in groups]


def _entry(saved: Any, parameter: nn.Parameter) -> dict[str, Any]:
    """Return the state of one parameter, checked against its shape."""
    entry = dict(saved) if isinstance(saved, Mapping) else {}
    for key, value in entry.items():
        if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
            raise UnknownOptimizer(
                f"{key!r} has shape {tuple(value.shape)} for a parameter of {tuple(parameter.shape)}: the order of "
                "its parameters is not the model's"
            )
    return {key: value.to(parameter.device) if isinstance(value, Tensor) and value.ndim else value
            for key, value in entry.items()}  # fmt: skip
