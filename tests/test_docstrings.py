"""Every example in a docstring runs. Walked by the package's own paths: `--doctest-modules` knows only bare names."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest
from without_torchvision import imported

import trainvitals
import trainvitals.diagnostics
import trainvitals.probes
import trainvitals.sample_runs

SCRIPTS = ("trainvitals.__main__", "trainvitals.views.app_pages")  # importing them would run them


def modules() -> list[str]:
    roots = {"trainvitals.": trainvitals.__path__[:1], "trainvitals.diagnostics.": trainvitals.diagnostics.__path__,
             "trainvitals.probes.": trainvitals.probes.__path__,
             "trainvitals.sample_runs.": trainvitals.sample_runs.__path__}  # fmt: skip
    found = {"trainvitals", "trainvitals.diagnostics", "trainvitals.probes", "trainvitals.sample_runs"}
    for prefix, path in roots.items():
        found |= {info.name for info in pkgutil.walk_packages(path, prefix)}
    return [name for name in sorted(found) if not name.startswith(SCRIPTS)]


def module(name: str) -> ModuleType:
    """Import a module; one of a tool that is optional and not here is skipped."""
    try:
        return imported(name)
    except ModuleNotFoundError as error:
        if name.startswith("trainvitals.integrations.") and not str(error.name).startswith("trainvitals"):
            pytest.skip(f"{error.name} is optional")
        raise


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    results = doctest.testmod(module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    here = [name for name in modules() if not name.startswith("trainvitals.integrations.")]
    assert sum(bool(test.examples) for name in here for test in finder.find(importlib.import_module(name))) >= 10
