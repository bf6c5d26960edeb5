"""One `.safetensors` file: weights, and a step if its metadata has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.loaders.contents import EPOCHS, STEPS, Contents, as_count, checked, unwrapped_names

SUFFIX = ".safetensors"


def matches(path: Path) -> bool:
    """Whether the name says safetensors."""
    return path.is_file() and path.suffix.lower() == SUFFIX


def read(path: Path) -> Contents:
    """Return the contents of a file.

    Raises:
        CheckpointError: if it holds no tensors; what safetensors raises for damaged files passes through.
    """
    with safe_open(str(path), framework="pt") as file:  # it checks every offset against the file's length
        # a copy: the file may be written anew while its tensors are in use
        weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (not a mapping)
        metadata: dict[str, Any] = dict(file.metadata() or {})
    if not weights:
        raise CheckpointError(f"expected tensors, got an empty file in {path}; save model.state_dict() to it")
    step, epoch = (
        next((count for key in keys if (count := as_count(metadata.get(key))) is not None), None)
        for keys in (STEPS, EPOCHS)
    )
    return Contents(checked(unwrapped_names(weights), str(path)), step, epoch)
