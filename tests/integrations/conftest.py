"""torchvision's operators need the very build of torch that it was made for: no framework here may find it."""

import importlib.metadata
import importlib.util
from unittest import mock

_find_spec, _version = importlib.util.find_spec, importlib.metadata.version


def _found_elsewhere(name, package=None):
    return None if name == "torchvision" else _find_spec(name, package)


def _version_of_others(name):
    if name == "torchvision":
        raise importlib.metadata.PackageNotFoundError(name)
    return _version(name)


with (
    mock.patch.object(importlib.util, "find_spec", _found_elsewhere),
    mock.patch.object(importlib.metadata, "version", _version_of_others),
):
    import lightning  # noqa: F401
    import transformers  # noqa: F401
