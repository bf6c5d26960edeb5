"""The promise of a probe: look at a model, run passes through it, and leave no trace.

Inside `bystander(model)` the model may be called, put in another mode, given hooks and other tensors.
On the way out, also by an exception or Ctrl-C, everything is bit for bit what it was: every module's
attributes (training flags, hooks, buffers and whatever the forward pass writes to `self`), every random
generator (Python, NumPy, torch on each device, and generators that modules hold), autocast, the
attention kernels and cuDNN switches, and global module hooks. That holds for modules that are no registered submodules
too (see `holdings`). Parameters are never written to.

Nothing is copied back into a tensor of the user's: buffers are replaced by clones for the time being,
and the originals, version counters included, are put back. The one exception are tensors inside lists, dicts
and helper objects of a module, which are mended in place if the pass changed them.
"""

from __future__ import annotations

import collections
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize
from torch.utils import checkpoint

from trainvitals.probes.holdings import Holdings, holdings

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
def bystander(
    model: nn.Module, *, mode: str = "eval", upcast: bool = True, beside: Iterable[Any] = ()
) -> Iterator[nn.Module]:
    """Lend the model for probe passes and take it back exactly as it was.

    Args:
        model: the module itself, not a compiled or parallel wrapper (see `unwrapped`).
        mode: "eval" switches BatchNorm and dropout to evaluation, "train" leaves a training model's flags
            as the user set them.
        upcast: hold bf16 and fp16 buffers and frozen parameters as float32, as probe passes hold the others.
        beside: what else the passes call (a loss, a `forward` function): modules that these hold are lent too.

    Yields:
        The same model, without user hooks and with cloned buffers.
    """
    held = holdings((model, *beside))
    trainable = {p for p in model.parameters() if p.requires_grad}
    with ExitStack() as restore:
        for undo in (preserving_random_state(held.generators), _restorer_of_contents(held)):
            restore.callback(_surely, undo)
        replacements = list(_replacements())
        restore.callback(_surely, _setter([(home, name, getattr(home, name)) for home, name, _ in replacements]))
        for module in held.modules:
            restore.callback(_surely, _restorer_of_attributes(module))
        restore.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        _setter(replacements)()
        torch.backends.mha.set_fastpath_enabled(False)  # its fused kernel has no double backward
        restore.enter_context(torch.inference_mode(False))  # before the clones, which would be inference tensors
        _set_mode(held.modules, mode)
        for module in held.modules:
            _lend(module, upcast, trainable)
        restore.enter_context(torch.enable_grad())
        restore.enter_context(torch.autograd.set_detect_anomaly(False))  # a NaN is a reading here
        restore.enter_context(sdpa_kernel(SDPBackend.MATH))  # the others have no double backward
        if any(isinstance(module, nn.RNNBase) for module in held.modules):  # cuDNN's have no double backward
            restore.callback(_set_cudnn, torch.backends.cudnn.enabled)
            _set_cudnn(False)
        if "torch._dynamo" in sys.modules:  # compiled parts and losses run as written: no double backward otherwise
            restore.enter_context(torch.compiler.set_stance("force_eager"))
        for device_type in sorted({"cpu", *(p.device.type for p in model.parameters())} - {"meta"}):
            restore.enter_context(torch.autocast(device_type, enabled=False))
        yield model


def _set_cudnn(enabled: bool) -> None:
    """Set the flag alone: `torch.backends.cudnn.flags` would write all others too, in torch's older API."""
    torch._C._set_cudnn_enabled(enabled)


def _set_mode(modules: list[nn.Module], mode: str) -> None:
    """Set flags directly: a user's own `train()` may do more (LoRA layers merge weights in it)."""
    if mode not in ("eval", "train"):
        raise ValueError(f"expected mode 'eval' or 'train', got {mode!r} in a probe; eval is the default")
    if mode == "train" and any(m.training for m in modules):
        return
    for module in modules:
        module.__dict__["training"] = mode == "train"


def _lend(module: nn.Module, upcast: bool, trainable: set[nn.Parameter]) -> None:
    """Give the module throw-away dicts of parameters, buffers and hooks, and clones of its tensors."""
    attributes = module.__dict__
    for name, value in list(attributes.items()):
        if isinstance(value, Tensor):
            attributes[name] = _clone(value, upcast)
        elif name == "_buffers":
            attributes[name] = {
                key: None if tensor is None else _clone(tensor, upcast) for key, tensor in value.items()
            }
        elif name == "_parameters":  # trainable ones are handed in by each pass
            attributes[name] = {
                key: _clone(p, upcast) if upcast and p is not None and p.dtype in _HALF and p not in trainable else p
                for key, p in value.items()
            }
        elif name == "_modules":
            attributes[name] = dict(value)
        elif name.endswith("_hooks") and isinstance(value, dict):
            attributes[name] = collections.OrderedDict(
                (key, hook) for key, hook in value.items() if belongs_to_torch(hook)
            )
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        attributes["sparse"] = False  # the same gradient, dense: sparse ones have no second derivative


def _clone(tensor: Tensor, upcast: bool) -> Tensor:
    copy = tensor.detach().clone()
    return copy.float() if upcast and copy.dtype in _HALF else copy


def belongs_to_torch(hook: object) -> bool:
    """Tell hooks that compute the weights (weight norm, spectral norm, pruning) from the user's."""
    homes = (hook, *type(hook).__mro__)  # a pruning method of the user's derives from torch's
    return any(str(getattr(home, "__module__", "")).startswith("torch.nn.utils.") for home in homes)


def _surely(restore: Callable[[], None]) -> None:
    """Put something back, a second time if Ctrl-C came in the middle."""
    try:
        restore()
    except BaseException:
        restore()
        raise


def _restorer_of_attributes(module: nn.Module) -> Callable[[], None]:
    attributes = dict(module.__dict__)

    def restore() -> None:
        module.__dict__.clear()
        module.__dict__.update(attributes)

    return restore


def _restorer_of_contents(held: Holdings) -> Callable[[], None]:
    contents = [(container, _shallow(container)) for container in held.containers]
    # inference tensors cannot be written to outside inference mode, and probe passes run outside
    tensors = [(t, t._version, t.detach().clone()) for t in held.tensors if not t.is_inference()]

    def restore() -> None:
        for container, before in contents:
            _refill(container, before)
        for tensor, version, before in tensors:
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


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    """Yield (module of torch's, name of a global, what it is during probe passes)."""
    for name, value in vars(torch_module).items():
        if name.startswith("_global_") and isinstance(value, dict):
            yield torch_module, name, collections.OrderedDict()
    yield parametrize, "_cache_enabled", 0  # `parametrize.cached()` would hand a probe's weights to training
    yield parametrize, "_cache", {}
    yield torch, "_weight_norm", _weight_norm
    yield sys.modules["torch.nn.utils.weight_norm"], "_weight_norm", _weight_norm
    # A checkpointed segment is computed again in the backward pass, when the probe's parameters are no longer
    # in the model: its second derivatives would be wrong. Probe passes keep what it saves.
    yield checkpoint, "CheckpointFunction", _WithoutCheckpoint
    yield checkpoint, "_checkpoint_without_reentrant_generator", _nothing_before_and_after


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Stands for torch's own, whose second derivatives are wrong for the first and last dim (seen in 2.13).

    w = g v / ‖v‖, the norm over all dimensions but `dim`, or over all of them for −1.
    """
    others = [axis for axis in range(v.ndim) if axis != dim]
    return g * v / v.square().sum(others, keepdim=dim != -1).sqrt()


class _WithoutCheckpoint:
    """Stands for torch's `CheckpointFunction`."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


def _nothing_before_and_after(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


def _setter(values: list[tuple[Any, str, Any]]) -> Callable[[], None]:
    def put() -> None:
        for home, name, value in values:
            setattr(home, name, value)

    return put


def seed_random_state(seed: int) -> None:
    """Seed what `preserving_random_state` puts back: torch's generator of the CPU, and those of CUDA if it is in use.

    `torch.manual_seed` also leaves a seed, and a stack trace, for devices that are not in use yet: the seed that the
    user has left for them would be lost, and a pass over a small model take twice as long.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


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
