"""What a model holds: every module, container and random generator that its forward pass may write to.

Registered submodules are not all: a teacher kept in a plain list so that it is not trained, a cache in nested
lists, a helper object with a counter, a loss that is a module or a function that reads one. They are found by
walking attributes, containers, helper objects, and what functions close over or read from their globals.
"""

from __future__ import annotations

import collections
import functools
import random
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CONTAINERS = (list, dict, set, collections.deque)
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_MAX_DEPTH = 8
_MAX_ITEMS = 1024  # of a container whose items are looked at: vocabularies and data sets are not state
_FOREIGN = ("torch", "numpy", "builtins", "trainvitals")  # packages whose objects are no helpers of a model
_OF_MODULES = frozenset(nn.Module.__annotations__)  # "_parameters", "_buffers", hooks…: the bystander's own


@dataclass
class Holdings:
    """What was found, each object once."""

    modules: list[nn.Module] = field(default_factory=list)
    containers: list[Any] = field(default_factory=list)  # held by modules, `vars()` of helper objects among them
    tensors: list[Tensor] = field(default_factory=list)  # in those containers
    generators: list[Any] = field(default_factory=list)


def holdings(roots: Iterable[Any]) -> Holdings:
    """Return what models, losses and functions hold.

    Containers count only where a module leads to them: what a function of the user's can see besides may be
    written to by other threads at any time. Helper objects are followed if their class comes from the package
    of their holder, so that a walk from a model never takes in its trainer.
    """
    found, seen = Holdings(), set()
    queue = [(root, _package(root), False, 0) for root in roots]
    while queue:
        value, package, is_owned, depth = queue.pop()
        if depth > _MAX_DEPTH or isinstance(value, (str, int, float, type(None), type)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found.modules.append(value)
            package, is_owned, depth = _package(value), True, 0
        elif isinstance(value, GENERATORS):
            found.generators.append(value)
        elif isinstance(value, Tensor):
            if is_owned and type(value) is Tensor:
                found.tensors.append(value)
        elif is_owned and isinstance(value, CONTAINERS):
            found.containers.append(value)
        elif is_owned and _is_helper(value, package):
            found.containers.append(vars(value))
        queue += [(part, package, is_owned, depth + 1) for part in _parts(value, package)]
    return found


def _parts(value: Any, package: str) -> Iterator[Any]:
    """Yield what a value leads to."""
    if isinstance(value, nn.Module):
        yield from value._modules.values()
        # tensors of its own are lent as clones; those in containers are not
        yield from (v for k, v in vars(value).items() if k not in _OF_MODULES and not isinstance(v, Tensor))
    elif isinstance(value, dict):
        yield from value.values() if len(value) <= _MAX_ITEMS else ()
    elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        yield from value if len(value) <= _MAX_ITEMS else ()
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _seen_by(value)
    elif _is_helper(value, package):
        yield from vars(value).values()


def _seen_by(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function of the user's closes over, and the globals that it names."""
    if _package(function) in _FOREIGN:
        return
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from (function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__)


def _is_helper(value: Any, package: str) -> bool:
    """Tell an object of the holder's own package, or a plain namespace, from machinery that it refers to."""
    if not isinstance(getattr(value, "__dict__", None), dict) or isinstance(value, (types.ModuleType, nn.Module)):
        return False
    own = type(value).__module__.partition(".")[0]
    return isinstance(value, types.SimpleNamespace) or (own == package and own not in _FOREIGN)


def _package(value: Any) -> str:
    named = value if isinstance(value, types.FunctionType) else type(value)
    return str(named.__module__ or "").partition(".")[0]
