"""What a run was made with: versions, commit, command and settings, with secrets hidden."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import trainvitals
from trainvitals.redaction import redact, redact_arguments, redact_text

GIT_SECONDS = 2.0  # a repository on a slow disk is not worth more of the user's time
MAX_DEPTH = 8  # of settings within settings
MAX_ITEMS = 1000  # of one mapping or list
MAX_CHARACTERS = 4096  # of one text
MAX_COMMAND_WORDS = 256


def environment(device: torch.device | str) -> dict[str, Any]:
    """Return what the run is made with, plain enough for JSON."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "trainvitals": trainvitals.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "packages": imported_packages(),
        "git": git_state(program_folder()),
        "torch_seed": torch.initial_seed(),
    }


def command() -> list[str]:
    """Return the command that started the program, secrets hidden."""
    return [word[:MAX_CHARACTERS] for word in redact_arguments(sys.argv[:MAX_COMMAND_WORDS])]


def imported_packages() -> dict[str, str]:
    """Return the versions of the packages that are imported, by the name under which they are installed.

    >>> imported_packages()["torch"] == torch.__version__
    True
    """
    tops = {name.partition(".")[0] for name in list(sys.modules)}
    versions = {}
    for name in sorted(tops - sys.stdlib_module_names):
        if name.startswith("_"):
            continue
        try:
            versions[name] = importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue  # a module of the user's, or one whose package has another name
    return versions


def program_folder() -> Path:
    """Return the folder of the program, or the working folder where there is no program file."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(path).resolve().parent if path else Path.cwd()


def git_state(folder: Path) -> dict[str, Any]:
    """Return `commit` and `is_changed` (tracked files differ from it) of the repository around a folder.

    Empty where there is none, no git, or no answer in two seconds. No remote is asked for or recorded.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "is_changed": None if changes is None else bool(changes)}


def _git(folder: Path, *words: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # looking must not write
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=False,
            env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def plain_config(config: Any) -> dict[str, Any]:
    """Return the user's settings as JSON has them, secrets hidden.

    Takes mappings, dataclasses and namespaces (of argparse) at any depth; what is no number, text, list
    or mapping is recorded as its text.

    Raises:
        ValueError: if it is none of these.

    >>> plain_config({"lr": 0.1, "layers": (3, 4), "api_key": "abc"})
    {'lr': 0.1, 'layers': [3, 4], 'api_key': '***'}
    """
    mapping = _mapping(config)
    if mapping is None:
        raise ValueError(
            f"expected a mapping, a dataclass or a namespace, got {type(config).__name__} in watch(config=...); "
            "pass dict(...) of your settings, or vars(args)"
        )
    return redact(_plain(mapping, MAX_DEPTH))


def _mapping(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if type(value).__name__ == "Namespace" and hasattr(value, "__dict__"):
        return vars(value)
    return None


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value
    if isinstance(value, str):
        return _text(value)
    mapping = _mapping(value)
    if depth and mapping is not None:
        items = list(mapping.items())[:MAX_ITEMS]
        return {_text(str(key)): _plain(item, depth - 1) for key, item in items}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth - 1) for item in list(value)[:MAX_ITEMS]]
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    try:
        return _text(str(value))
    except Exception:  # a class of the user's
        return f"<{type(value).__name__}>"


def _text(text: str) -> str:
    """Return the text, not longer than is kept; first without secrets, so that none is cut to another shape."""
    return redact_text(text)[:MAX_CHARACTERS]
