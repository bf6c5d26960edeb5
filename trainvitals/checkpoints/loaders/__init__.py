"""How checkpoints are read: one format a file, safetensors or `weights_only=True`, with no fallback.

A loader is a module with `matches(path)`, which looks at names only, and `read(path)`, which gives `Contents`.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.loaders import distributed, hugging_face, safetensors_file, torch_file
from trainvitals.checkpoints.loaders.contents import Contents

FORMATS: tuple[ModuleType, ...] = (distributed, hugging_face, safetensors_file, torch_file)


def format_of(path: Path) -> ModuleType | None:
    """Return the loader for a path, or None if its name is that of no checkpoint."""
    return next((loader for loader in FORMATS if loader.matches(path)), None)


def load(path: Path) -> Contents:
    """Read one checkpoint.

    Raises:
        CheckpointError: whatever is wrong with it, in one sentence.
    """
    loader = format_of(path)
    if loader is None:
        got = "nothing" if not path.exists() else "a folder without weights" if path.is_dir() else f"{path.name!r}"
        raise CheckpointError(
            f"expected a .safetensors, .pt, .pth, .bin or .ckpt file, or a folder of Hugging Face, Accelerate or "
            f"torch.distributed.checkpoint, got {got} in {path}; check the path"
        )
    try:
        return loader.read(path)
    except CheckpointError:
        raise
    except Exception as error:  # zip, pickle, JSON, memory: what a damaged file does cannot be listed
        text = " ".join(str(error).split())
        raise CheckpointError(
            f"expected a whole checkpoint, got a damaged, truncated or unreadable one ({type(error).__name__}: "
            f"{text[:200]}) in {path}; copy or save it again"
        ) from error
