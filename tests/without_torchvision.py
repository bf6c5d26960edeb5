"""Import frameworks that would find torchvision, whose operators need the very build of torch it was made for."""

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType
from typing import Any
from unittest import mock

_find_spec, _version = importlib.util.find_spec, importlib.metadata.version


def found_elsewhere(name: str, package: str | None = None) -> Any:
    """Return what `find_spec` finds, but for torchvision."""
    return None if name == "torchvision" else _find_spec(name, package)


def _version_of_others(name: str) -> str:
    if name == "torchvision":
        raise importlib.metadata.PackageNotFoundError(name)
    return _version(name)


def imported(name: str) -> ModuleType:
    """Import a module as if torchvision were not installed: nothing that the tests use needs it."""
    with (
        mock.patch.object(importlib.util, "find_spec", found_elsewhere),
        mock.patch.object(importlib.metadata, "version", _version_of_others),
    ):
        return importlib.import_module(name)
