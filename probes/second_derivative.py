"""Which part of a model has no second derivative: found by differentiating each part twice, on its own inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from trainvitals.diagnostics.linalg.differentiable_twice import refuse_once_differentiable
from trainvitals.probes.probe_batch import first_samples
from trainvitals.probes.subject import Subject, float32_if_half

_NUM_SAMPLES = 2


def without_second_derivative(subject: Subject) -> str:
    """Return the innermost module that cannot be differentiated twice, by name and class, or the loss.

    Every module is called again, by itself, on the inputs that it had in a pass over two samples. Returns "" where
    all parts pass: then the operation stands between them. To be called inside the bystander.
    """
    try:
        return _searched(subject)
    except Exception:  # the search must not hide what it was made for
        return ""


def _searched(subject: Subject) -> str:
    calls: dict[str, tuple[nn.Module, Any]] = {}
    handles = [
        module.register_forward_hook(_recorder(calls, name), with_kwargs=True)
        for name, module in subject.model.named_modules()
    ]
    chunk, size = subject.train.chunks[0], subject.train.sizes[0]
    if size > _NUM_SAMPLES:
        chunk = first_samples(chunk, _NUM_SAMPLES, size)
    try:
        with torch.no_grad():
            _, outputs = subject.raw_loss_and_outputs(subject.parameters(), chunk)
    finally:
        for handle in handles:
            handle.remove()
    if subject.loss is not None and not _is_twice_differentiable(
        lambda values: subject.loss(values[0], float32_if_half(chunk[1])), [outputs]  # pyright: ignore[reportOptionalCall]
    ):  # fmt: skip
        return f"the loss ({_kind(subject.loss)})"
    for name, (module, inputs) in sorted(calls.items(), key=lambda call: -call[0].count(".") - bool(call[0])):
        if not _passes(module, inputs):
            return f"module {name!r} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
    return ""


def _recorder(calls: dict[str, tuple[nn.Module, Any]], name: str) -> Callable[..., None]:
    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.setdefault(name, (module, (args, kwargs)))

    return record


def _passes(module: nn.Module, inputs: Any) -> bool:
    leaves, structure = tree_flatten(inputs)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    parameters = {name: float32_if_half(p) for name, p in module.named_parameters()}

    def call(values: Sequence[Tensor]) -> Any:
        given = list(leaves)
        for place, value in zip(places, values, strict=False):
            given[place] = value
        args, kwargs = tree_unflatten(given, structure)
        return functional_call(module, dict(zip(parameters, values[len(places) :], strict=True)), args, kwargs)

    return _is_twice_differentiable(call, [*(leaves[i] for i in places), *parameters.values()])


def _is_twice_differentiable(function: Callable[[Sequence[Tensor]], Any], values: Sequence[Any]) -> bool:
    """Tell whether Σ f² has second derivatives; what has no first ones is not at fault."""
    if not all(isinstance(value, Tensor) for value in values):
        return True
    leaves = [value.detach().clone().requires_grad_(True) for value in values]
    try:
        with torch.enable_grad():
            torch.autograd.grad(_square(function(leaves)), leaves, allow_unused=True)
    except Exception:
        return True
    try:
        with torch.enable_grad():
            first = torch.autograd.grad(_square(function(leaves)), leaves, allow_unused=True, create_graph=True)
            curved = [g for g in first if g is not None and g.requires_grad]
            refuse_once_differentiable(curved)
            if curved:
                torch.autograd.grad(_square(curved), leaves, allow_unused=True)
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _square(outputs: Any) -> Tensor:
    found = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
    return torch.stack([t.square().sum() for t in found]).sum()


def _kind(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)
