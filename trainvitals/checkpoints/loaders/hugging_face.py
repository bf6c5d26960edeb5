"""Folders of Hugging Face's `save_pretrained` and Trainer, and of Accelerate's `save_state`; sharded ones too."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.loaders import distributed, safetensors_file, torch_file
from trainvitals.checkpoints.loaders.contents import EPOCHS, STEPS, Contents, as_count, is_optimizer_state

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin")
FSDP = "pytorch_model_fsdp_0"  # Accelerate's sharded state of a model, a folder of torch.distributed.checkpoint
OPTIMIZER_FILES = ("optimizer.pt", "optimizer.bin")
TRAINER_STATE = "trainer_state.json"
MAX_JSON_BYTES = 256 * 2**20


def matches(path: Path) -> bool:
    """Whether the folder has a file of weights under one of the usual names."""
    return path.is_dir() and (any((path / name).is_file() for name in (*INDEXES, *SINGLE)) or (path / FSDP).is_dir())


def read(path: Path) -> Contents:
    """Return the contents of a folder.

    Raises:
        CheckpointError: for an index that names missing files or files elsewhere, or weights that cannot be read.
    """
    contents = _weights(path)
    for name in OPTIMIZER_FILES:
        if (path / name).is_file():
            saved = torch_file.tensors_of(path / name)
            contents.optimizer = saved if is_optimizer_state(saved) else None
            break
    if (path / TRAINER_STATE).is_file():
        state = _json(path / TRAINER_STATE)
        contents.step = _count(state, STEPS, contents.step)
        contents.epoch = _count(state, EPOCHS, contents.epoch)
    return contents


def _weights(path: Path) -> Contents:
    for name in INDEXES:
        if (path / name).is_file():
            return _shards(path, name)
    for name in SINGLE:
        if (path / name).is_file():
            return _reader(name)(path / name)
    return distributed.read(path / FSDP)


def _shards(path: Path, index: str) -> Contents:
    """Read the shards one after the other; each tensor is taken from the file that the index names."""
    homes = _json(path / index).get("weight_map")
    if not isinstance(homes, Mapping) or not homes or not all(isinstance(home, str) for home in homes.values()):
        raise CheckpointError(
            f"expected a 'weight_map' from tensors to files, got none in {path / index}; save the checkpoint again"
        )
    weights = {}
    for home in sorted(set(homes.values())):
        if Path(home).name != home or home in ("", ".", "..") or not (path / home).is_file():
            raise CheckpointError(
                f"expected shards beside the index, got {home!r}, which is not there, in {path / index}; "
                "copy all files of the checkpoint"
            )
        found = _reader(home)(path / home).weights
        weights |= {name: found[name] for name, its in homes.items() if its == home and name in found}
    if absent := [name for name in homes if name not in weights]:
        raise CheckpointError(
            f"expected every tensor of the index, got shards without {', '.join(absent[:3])} ({len(absent)} in all) "
            f"in {path}; copy all files of the checkpoint"
        )
    return Contents(weights)


def _reader(name: str) -> Callable[[Path], Contents]:
    return safetensors_file.read if name.endswith(safetensors_file.SUFFIX) else torch_file.read


def _json(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"expected an index of a few megabytes, got more than 256 MiB in {path}; is it one?")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"expected JSON, got {error} in {path}; copy or save the checkpoint again") from error
    return found if isinstance(found, Mapping) else {}


def _count(state: Mapping[str, Any], keys: tuple[str, ...], other: int | None) -> int | None:
    return next((count for key in keys if (count := as_count(state.get(key))) is not None), other)
