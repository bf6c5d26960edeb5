"""What diagnostics remember between checkpoints, as a file: so that a killed analysis goes on without redoing.

The file holds plain values and tensors and is read with `weights_only=True`. A dataclass in it can only become a
dataclass of the module of the diagnostic that it belongs to.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic

_PLAIN = (bool, int, float, str, type(None))
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}


def save(path: Path, positions: Mapping[str, int], diagnostics: Sequence[Diagnostic]) -> None:
    """Write what diagnostics remember, all or nothing.

    Args:
        path: of the file; replaced.
        positions: by diagnostic, the step of the last checkpoint that it has seen.
        diagnostics: whose fields are kept; one that holds what cannot be written is left out, and sees the
            checkpoints again.
    """
    kept = {}
    for diagnostic in diagnostics:
        try:
            fields = {name: _encoded(getattr(diagnostic, name)) for name in _memory_fields(diagnostic)}
        except TypeError:
            continue
        kept[diagnostic.name] = {"step": positions[diagnostic.name], "fields": fields}
    hidden = path.with_name(f".{path.name}.new")
    with open(os.open(hidden, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        torch.save(kept, file)
    os.replace(hidden, path)


def restore(path: Path, diagnostics: Sequence[Diagnostic]) -> dict[str, int]:
    """Give diagnostics back what they remembered.

    Returns:
        By name, the step of the last checkpoint seen; those that are not there have to see all again.
    """
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # not there, or cut short: what it held is measured again
        return {}
    found: dict[str, int] = {}
    for diagnostic in diagnostics:
        try:
            entry: Any = kept[diagnostic.name]
            fields = {name: _decoded(entry["fields"][name], diagnostic) for name in _memory_fields(diagnostic)}
            step = int(entry["step"])
        except (TypeError, KeyError, ValueError, AttributeError):
            continue
        for name, value in fields.items():
            setattr(diagnostic, name, value)
        found[diagnostic.name] = step
    return found


def _memory_fields(diagnostic: Diagnostic) -> list[str]:
    if not dataclasses.is_dataclass(diagnostic):
        return []
    return [field.name for field in dataclasses.fields(diagnostic) if not field.init]


def _encoded(value: Any) -> Any:
    if isinstance(value, np.generic):  # before the plain ones: np.float64 is a float, and pickles as NumPy's
        return value.item()
    if isinstance(value, (*_PLAIN, Tensor)):
        return value
    if isinstance(value, np.ndarray):
        return {"kind": "array", "value": torch.as_tensor(value)}
    if isinstance(value, Mapping):
        return {"kind": "dict", "items": [[_encoded(k), _encoded(v)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value):
        fields = {f.name: _encoded(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": "dataclass", "class": type(value).__name__, "fields": fields}
    for kind, cls in _SEQUENCES.items():
        if isinstance(value, cls):
            return {"kind": kind, "items": [_encoded(item) for item in value], "most": getattr(value, "maxlen", None)}
    raise TypeError(f"expected plain values, tensors and dataclasses, got {type(value).__name__} in a diagnostic")


def _decoded(value: Any, owner: Diagnostic) -> Any:
    if not isinstance(value, dict):
        return value
    kind = value["kind"]
    if kind == "array":
        return value["value"].numpy()
    if kind == "dict":
        return {_decoded(k, owner): _decoded(v, owner) for k, v in value["items"]}
    if kind == "dataclass":
        cls = vars(sys.modules[type(owner).__module__])[value["class"]]
        if not dataclasses.is_dataclass(cls):
            raise ValueError(f"expected a dataclass, got {value['class']!r}")
        made = object.__new__(cls)  # pyright: ignore[reportArgumentType]
        for name, part in value["fields"].items():
            object.__setattr__(made, name, _decoded(part, owner))
        return made
    items = [_decoded(item, owner) for item in value["items"]]
    return deque(items, value["most"]) if kind == "deque" else _SEQUENCES[kind](items)
