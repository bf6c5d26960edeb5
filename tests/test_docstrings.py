"""Every example in a docstring runs. Walked by the package's own paths: `--doctest-modules` knows only bare names."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import trainvitals
import trainvitals.diagnostics
import trainvitals.probes

SCRIPTS = ("trainvitals.__main__", "trainvitals.views.app_pages")  # importing them would run them


def modules() -> list[str]:
    roots = {"trainvitals.": trainvitals.__path__[:1], "trainvitals.diagnostics.": trainvitals.diagnostics.__path__,
             "trainvitals.probes.": trainvitals.probes.__path__}  # fmt: skip
    found = {"trainvitals", "trainvitals.diagnostics", "trainvitals.probes"}
    for prefix, path in roots.items():
        found |= {info.name for info in pkgutil.walk_packages(path, prefix)}
    return [name for name in sorted(found) if not name.startswith(SCRIPTS)]


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    results = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert results.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert sum(bool(test.examples) for name in modules() for test in finder.find(importlib.import_module(name))) >= 10
