"""Folders of `torch.distributed.checkpoint`, read without torch's own reader, which unpickles what it finds.

`.metadata` is a pickle: here it may build torch's own descriptions of tensors, and nothing else. Each piece of a
tensor in a `.distcp` file is a file of `torch.save` of its own and is read with `weights_only=True`.
"""

from __future__ import annotations

import math
import pathlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.loaders import torch_file
from trainvitals.checkpoints.loaders.contents import Contents, contents_of

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

METADATA = ".metadata"
_FORMS = ("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "MetadataIndex",
          "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING")  # fmt: skip


@lru_cache(maxsize=1)
def _allowed() -> dict[tuple[str, str], Any]:
    """Return what a pickle may build. Made when one is read: torch's package takes most of a second to import."""
    from torch.distributed.checkpoint import metadata as forms
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    return {
        **{(forms.__name__, name): getattr(forms, name) for name in _FORMS if hasattr(forms, name)},
        (_StorageInfo.__module__, "_StorageInfo"): _StorageInfo,
        ("torch", "Size"): torch.Size,
        ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
        ("collections", "OrderedDict"): OrderedDict,
        **{(module, name): pathlib.PurePosixPath for module in ("pathlib", "pathlib._local")
           for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")},
    }  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """Builds descriptions of tensors; whatever else a pickle asks for is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if (module, name) in _allowed():
            return _allowed()[module, name]
        raise CheckpointError(
            f"expected descriptions of tensors only, got a pickle that asks for '{module}.{name}' in a .metadata "
            "file; it was refused and not executed: if you trust its origin, load the checkpoint where it was made "
            "and save the weights alone with safetensors"
        )


def matches(path: Path) -> bool:
    """Whether the folder has the metadata of a distributed checkpoint."""
    return path.is_dir() and (path / METADATA).is_file()


def read(path: Path) -> Contents:
    """Return the contents of a folder, all ranks' pieces put together.

    Raises:
        CheckpointError: for metadata that asks for code, or pieces that are missing or do not fit.
    """
    from torch.distributed.checkpoint import metadata as forms

    with open(path / METADATA, "rb") as file:
        metadata = _Unpickler(file).load()
    described = getattr(metadata, "state_dict_metadata", None)
    if not isinstance(metadata, forms.Metadata) or not isinstance(described, Mapping):
        raise CheckpointError(f"expected the metadata of a distributed checkpoint, got another object in {path}")
    pieces: dict[str, list[tuple[Any, Any]]] = {}
    for index, place in (metadata.storage_data or {}).items():
        pieces.setdefault(index.fqn, []).append((index, place))
    saved: dict[Any, Any] = {}
    paths = metadata.planner_data if isinstance(metadata.planner_data, Mapping) else {}
    for name, form in described.items():
        if isinstance(form, forms.TensorStorageMetadata):
            value: Any = _tensor(path, name, form, pieces.get(name, []))
        else:
            value = _plain(path, name, pieces.get(name, []))
        _put(saved, paths.get(name, (name,)), value)
    return contents_of(_with_lists(saved), str(path))


def _tensor(path: Path, name: str, form: TensorStorageMetadata, pieces: list[tuple[Any, Any]]) -> Tensor:
    """Put the pieces of one tensor together."""
    size, dtype = torch.Size(form.size), form.properties.dtype
    available = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    if math.prod(size) * dtype.itemsize > available:
        raise _damaged(path, f"{name!r} of shape {tuple(size)} in {available} bytes of files")
    whole, num_filled = torch.empty(size, dtype=dtype), 0
    for index, place in pieces:
        piece = _load(path, place)
        start = tuple(index.offset) if index.offset is not None else (0,) * len(size)
        fits = isinstance(piece, Tensor) and piece.ndim == len(size) == len(start) and all(
            low >= 0 and low + length <= total for low, length, total in zip(start, piece.shape, size, strict=True)
        )  # fmt: skip
        if not fits:
            raise _damaged(path, f"a piece of {name!r} that does not fit into {tuple(size)}")
        whole[tuple(slice(low, low + n) for low, n in zip(start, piece.shape, strict=True))] = piece
        num_filled += piece.numel()
    if num_filled != whole.numel():
        raise _damaged(path, f"{num_filled} of {whole.numel()} numbers of {name!r}")
    return whole


def _plain(path: Path, name: str, pieces: list[tuple[Any, Any]]) -> Any:
    """Return a value that is no tensor; one that asks for code is left out, for weights do not need it."""
    try:
        return _load(path, pieces[0][1]) if pieces else None
    except CheckpointError:
        return None


def _load(path: Path, place: Any) -> Any:
    file, offset, length = place.relative_path, place.offset, place.length
    is_beside = isinstance(file, str) and Path(file).name == file and file not in ("", ".", "..")
    if not is_beside or not isinstance(offset, int) or not isinstance(length, int) or offset < 0 or length < 0:
        raise _damaged(path, f"a piece in {file!r} at {offset}, {length} bytes long")
    if getattr(place, "transform_descriptors", None):
        raise CheckpointError(
            f"expected pieces as torch.save makes them, got transformed ones in {path}; save without extensions"
        )
    if not (path / file).is_file() or (path / file).stat().st_size < offset + length:
        raise _damaged(path, f"{file!r} without bytes {offset} to {offset + length}")
    with open(path / file, "rb") as stream:
        stream.seek(offset)
        return torch_file.from_bytes(stream.read(length), f"{path / file}")


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"expected a whole checkpoint, got {what} in {path}; copy all its files, or save it again")


def _put(saved: dict[Any, Any], keys: Any, value: Any) -> None:
    place = saved
    *outer, last = keys
    for key in outer:
        place = place.setdefault(key, {})
    place[last] = value


def _with_lists(value: Any) -> Any:
    """Turn dictionaries with the keys 0, 1, 2… back into the lists that they were: parameter groups."""
    if not isinstance(value, dict):
        return value
    inner = {key: _with_lists(item) for key, item in value.items()}
    is_list = bool(inner) and all(isinstance(key, int) for key in inner) and set(inner) == set(range(len(inner)))
    return [inner[i] for i in range(len(inner))] if is_list else inner
