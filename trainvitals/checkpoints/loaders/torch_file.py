"""Files of `torch.save`: `.pt`, `.pth`, `.bin`, and Lightning's `.ckpt`. Tensors only; a pickle is never executed."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from pathlib import Path
from typing import IO, Any

import torch

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.loaders.contents import Contents, contents_of

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl", ".pickle")
FIRST_SAFE_TORCH = (2, 6)  # before it, weights_only=True could be talked into running code (CVE-2025-32434)
_ASKED_FOR = re.compile(r"(?:Unsupported global: GLOBAL |Unsupported class |GLOBAL )([\w.]+)")


def matches(path: Path) -> bool:
    """Whether the name is one of torch's."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path) -> Contents:
    """Return the contents of a file.

    Raises:
        CheckpointError: if it asks for anything but tensors and plain values, or holds no weights.
    """
    return contents_of(tensors_of(path), str(path))


def tensors_of(source: Path | IO[bytes], where: str = "") -> Any:
    """Load with `weights_only=True`, and with nothing else if that fails.

    Raises:
        CheckpointError: if the pickle asks for code; what torch raises for damaged files passes through.
    """
    where = where or str(source)
    if _version() < FIRST_SAFE_TORCH:
        raise CheckpointError(
            f"expected torch 2.6 or newer for files of torch.save, got {torch.__version__} in {where}; older ones can "
            "be made to run code by such a file (CVE-2025-32434): update torch, or convert to safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        _refuse(error, where)
        raise


def from_bytes(data: bytes, where: str) -> Any:
    """Load what `torch.save` made of one object."""
    return tensors_of(io.BytesIO(data), where)


def _refuse(error: Exception, where: str) -> None:
    """Raise a refusal if it was for the pickle's content that torch gave up."""
    text = str(error)
    asked = _ASKED_FOR.search(text)
    is_script = "TorchScript" in text
    if asked:
        what = f"a pickle that asks for {asked.group(1)!r}"
    elif is_script:
        what = "a TorchScript program"
    elif isinstance(error, pickle.UnpicklingError):
        what = "a damaged file or a pickle of another kind"
    else:
        return
    raise CheckpointError(
        f"expected tensors and plain values only, got {what} in {where}; it was refused and not executed: if you "
        "trust its origin, load it once where it was made and save the weights alone, "
        "torch.save({'state_dict': model.state_dict(), 'step': step}, path) or safetensors.torch.save_file(...)"
    ) from error


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
