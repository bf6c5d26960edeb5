"""The promise of a probe: look at a model, run passes through it, and leave no trace.

Inside `bystander(model)` the model may be called, put in another mode, given hooks and other tensors.
On the way out, also by an exception or Ctrl-C, everything is bit for bit what it was: every module's
attributes (training flags, hooks, buffers and whatever the forward pass writes to `self`), every random
generator (Python, NumPy, torch on each device, and generators that modules hold), autocast, the
attention kernels allowed, and global module hooks. Parameters are never written to.

Nothing is copied back into a tensor of the user's: buffers are replaced by clones for the time being,
and the originals, version counters included, are put back. The one exception are tensors inside plain
lists and dicts of a module, which are mended in place if the pass changed them.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as torch_module

_CONTAINERS = (list, dict, set, collections.deque)
_HALF = (torch.bfloat16, torch.float16)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile`, DataParallel and DistributedDataParallel.

    Compiled graphs have no double backward, and wrappers would scatter or synchronise a probe pass.
    """
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model


@contextmanager
def bystander(model: nn.Module, *, mode: str = "eval", upcast: bool = True) -> Iterator[nn.Module]:
    """Lend the model for probe passes and take it back exactly as it was.

    Args:
        model: the module itself, not a compiled or parallel wrapper (see `unwrapped`).
        mode: "eval" switches BatchNorm and dropout to evaluation, "train" leaves a training model's flags
            as the user set them.
        upcast: hold bf16 and fp16 buffers as float32, as probe passes hold the parameters.

    Yields:
        The same model, without user hooks and with cloned buffers.
    """
    with ExitStack() as restore:
        restore.callback(_restorer_of_generators(model))
        restore.callback(_restorer_of_global_hooks())
        for module in model.modules():
            restore.callback(_restorer_of_module(module))
        restore.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)  # its fused kernel has no double backward
        _set_mode(model, mode)
        for module in model.modules():
            _lend(module, upcast)
        restore.enter_context(torch.inference_mode(False))
        restore.enter_context(torch.enable_grad())
        restore.enter_context(sdpa_kernel(SDPBackend.MATH))  # the others have no double backward
        for device_type in sorted({"cpu", *(p.device.type for p in model.parameters())} - {"meta"}):
            restore.enter_context(torch.autocast(device_type, enabled=False))
        yield model


def _set_mode(model: nn.Module, mode: str) -> None:
    """Set flags directly: a user's own `train()` may do more (LoRA layers merge weights in it)."""
    if mode not in ("eval", "train"):
        raise ValueError(f"expected mode 'eval' or 'train', got {mode!r} in a probe; eval is the default")
    modules = list(model.modules())
    if mode == "train" and any(m.training for m in modules):
        return
    for module in modules:
        module.__dict__["training"] = mode == "train"


def _lend(module: nn.Module, upcast: bool) -> None:
    """Give the module throw-away dicts of parameters, buffers and hooks, and clones of its tensors."""
    attributes = module.__dict__
    for name, value in list(attributes.items()):
        if isinstance(value, Tensor):
            attributes[name] = _clone(value, upcast)
        elif name == "_buffers":
            attributes[name] = {
                key: None if tensor is None else _clone(tensor, upcast) for key, tensor in value.items()
            }
        elif name in ("_parameters", "_modules"):
            attributes[name] = dict(value)
        elif name.endswith("_hooks") and isinstance(value, dict):
            attributes[name] = collections.OrderedDict(
                (key, hook) for key, hook in value.items() if _belongs_to_torch(hook)
            )


def _clone(tensor: Tensor, upcast: bool) -> Tensor:
    copy = tensor.detach().clone()
    return copy.float() if upcast and copy.dtype in _HALF else copy


def _belongs_to_torch(hook: object) -> bool:
    """Tell hooks that compute the weights (weight norm, spectral norm, pruning) from the user's."""
    return str(getattr(hook, "__module__", "")).startswith("torch.nn.utils.")


def _restorer_of_module(module: nn.Module) -> Callable[[], None]:
    attributes = dict(module.__dict__)
    contents = [
        (value, _shallow(value))
        for name, value in attributes.items()
        if isinstance(value, _CONTAINERS) and name not in nn.Module.__annotations__ and not name.endswith("_hooks")
    ]
    held = [
        (tensor, tensor._version, tensor.detach().clone())
        for container, _ in contents
        for tensor in (container.values() if isinstance(container, dict) else container)
        if type(tensor) is Tensor
    ]

    def restore() -> None:
        module.__dict__.clear()
        module.__dict__.update(attributes)
        for container, before in contents:
            _refill(container, before)
        for tensor, version, before in held:
            if tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(before)

    return restore


def _shallow(container: Any) -> Any:
    return dict(container) if isinstance(container, dict) else list(container)


def _refill(container: Any, before: Any) -> None:
    """Put a container's items back if they are no longer the same objects in the same order."""
    now = _shallow(container)
    if isinstance(container, dict):
        same = list(now) == list(before) and all(now[key] is before[key] for key in before)
    else:
        same = len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))
    if same:
        return
    container.clear()
    container.update(before) if isinstance(container, (dict, set)) else container.extend(before)


def _restorer_of_global_hooks() -> Callable[[], None]:
    saved = {
        name: value
        for name, value in vars(torch_module).items()
        if name.startswith("_global_") and isinstance(value, dict)
    }
    for name in saved:
        setattr(torch_module, name, collections.OrderedDict())

    def restore() -> None:
        for name, value in saved.items():
            setattr(torch_module, name, value)

    return restore


def _restorer_of_generators(model: nn.Module) -> Callable[[], None]:
    return preserving_random_state(value for m in model.modules() for value in m.__dict__.values())


def preserving_random_state(holders: Any = ()) -> Callable[[], None]:
    """Return a function that puts back every global random state, and those of generators among `holders`."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    own = [restorer for value in holders if (restorer := _restorer_of_generator(value))]

    def restore() -> None:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        for put_back in own:
            put_back()

    return restore


def _restorer_of_generator(value: object) -> Callable[[], Any] | None:
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", bits)
    if isinstance(value, (random.Random, np.random.RandomState)):
        if isinstance(value, random.Random):
            python_state = value.getstate()
            return lambda: value.setstate(python_state)
        numpy_state = value.get_state()
        return lambda: value.set_state(numpy_state)
    return None
