"""How a model travels to another process: its structure as bytes, its tensors beside them.

Everything that can be reached is pickled anew for every snapshot, the tensors left out: so flags, layers that
thaw, numbers that a loss anneals and whatever else the user changes on the way arrive as they are. Classes and
functions of a script or notebook travel by their code where cloudpickle is installed; the other process never
runs the script. What is unpickled there was packed by its own parent.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from trainvitals.probes.bystander import belongs_to_torch

_PROTOCOL = pickle.HIGHEST_PROTOCOL
_cloudpickle: Any = importlib.import_module("cloudpickle") if importlib.util.find_spec("cloudpickle") else None
_Pickler: Any = pickle.Pickler if _cloudpickle is None else _cloudpickle.Pickler


def packed(value: Any) -> tuple[bytes, list[Tensor]]:
    """Return an object as bytes, and the tensors in it: each once, aliases of the user's own.

    Raises:
        Exception: whatever pickling raises for what cannot be sent to another process.
    """
    file, by_value = io.BytesIO(), []
    packer = _Packer(file, by_value)
    try:
        packer.dump(value)
    finally:
        for module in by_value:
            _cloudpickle.unregister_pickle_by_value(module)
    return file.getvalue(), packer.tensors


def unpacked(body: bytes, tensors: Sequence[Tensor]) -> Any:
    """Return the object again, with these tensors in the places of those that `packed` returned."""
    return _Unpacker(io.BytesIO(body), tensors).load()


def is_plain(tensor: Tensor) -> bool:
    """Tell a tensor that is nothing but numbers in memory; others are pickled with their numbers."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_meta or tensor.is_conj() or tensor.is_neg())
    )


class _Packer(_Pickler):
    def __init__(self, file: io.BytesIO, by_value: list[types.ModuleType]) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self.tensors: list[Tensor] = []
        self._indices: dict[int, int] = {}  # by identity: tied weights stay one tensor
        self._by_value = by_value

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor) or not is_plain(obj):
            return None
        index = self._indices.setdefault(id(obj), len(self.tensors))
        if index == len(self.tensors):
            self.tensors.append(obj)
        return index, type(obj) is nn.Parameter, obj.requires_grad and obj.is_leaf, obj.__dict__ or None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, nn.Module):
            return _reduced(obj)
        if isinstance(obj, (type, types.FunctionType)):
            inner = vars(obj).get("_torchdynamo_orig_callable")
            if inner is not None:  # a compiled loss: probe passes run it as written
                return _itself, (inner,)
            self._check_module(obj)
        return NotImplemented if _cloudpickle is None else super().reducer_override(obj)

    def _check_module(self, obj: Any) -> None:
        """Let what comes from a module that another process would not find travel by its code."""
        module = sys.modules.get(obj.__module__ or "")
        if _cloudpickle is None and obj.__module__ == "__main__":  # the other process has another main module
            raise pickle.PicklingError(f"{obj.__qualname__} of the script itself, without the package cloudpickle")
        if _cloudpickle is None or module is None or module in self._by_value or module.__name__ == "__main__":
            return
        file = str(getattr(module, "__file__", None) or "")
        if file.endswith(".py") and not _is_found(module.__name__, file):
            _cloudpickle.register_pickle_by_value(module)
            self._by_value.append(module)


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors
        self._made: dict[int, Tensor] = {}

    def persistent_load(self, pid: Any) -> Tensor:
        index, is_parameter, requires_grad, attributes = pid
        if index not in self._made:
            tensor = self._tensors[index]
            made: Tensor = nn.Parameter(tensor, requires_grad) if is_parameter else tensor.requires_grad_(requires_grad)
            vars(made).update(attributes or {})
            self._made[index] = made
        return self._made[index]


def _reduced(module: nn.Module) -> Any:
    """Return how pickle is to rebuild a module: without the hooks of the user's, which probe passes do not call."""
    if torch.nn.utils.parametrize.is_parametrized(module):
        return _parametrized, (type(module).__bases__[0],), _without_hooks(vars(module)), None, None, _set_attributes
    parts = module.__reduce_ex__(_PROTOCOL)
    if isinstance(parts, tuple) and len(parts) > 2 and isinstance(parts[2], dict):
        return *parts[:2], _without_hooks(parts[2]), *parts[3:]
    return parts


def _without_hooks(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: OrderedDict((key, hook) for key, hook in value.items() if belongs_to_torch(hook))
        if name.endswith("_hooks") and isinstance(value, dict)
        else value
        for name, value in state.items()
    }


def _parametrized(cls: type[nn.Module]) -> nn.Module:
    """Return an empty module of the class from which torch derived that of a parametrised one."""
    return cls.__new__(cls)


def _set_attributes(module: nn.Module, state: dict[str, Any]) -> None:
    """Fill a parametrised module, and make its class anew as `torch.nn.utils.parametrize` does."""
    from torch.nn.utils import parametrize

    vars(module).update(state)
    parametrize._inject_new_class(module)
    for name in state["_modules"]["parametrizations"]:
        parametrize._inject_property(module, name)


def _itself(value: Callable[..., Any]) -> Callable[..., Any]:
    return value


@functools.cache
def _is_found(name: str, file: str) -> bool:
    """Tell whether a fresh process with our `sys.path` finds the module of this name in this file."""
    path, parts, spec = None, name.split("."), None
    for count in range(1, len(parts) + 1):
        found = None
        for finder in sys.meta_path:
            with suppress(Exception):
                found = finder.find_spec(".".join(parts[:count]), path)
            if found is not None:
                break
        spec = found
        if spec is None or (count < len(parts) and spec.submodule_search_locations is None):
            return False
        # a package may add to its path when it is imported, as ours does
        path = getattr(sys.modules.get(spec.name), "__path__", spec.submodule_search_locations)
    return spec is not None and spec.origin == file
