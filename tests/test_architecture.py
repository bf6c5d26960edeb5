"""Who may import whom, what the folders hold, and what the documents name: walked, not listed by hand."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
TOP_FOLDERS = ("trainvitals", "diagnostics", "probes", "sample_runs")  # the last three are inside the first

# What a layer may import beyond the standard library and itself. The longest prefix that fits a module counts.
ALLOWED = {
    "trainvitals.schema": set(),
    "trainvitals": {"trainvitals.schema"},
    "trainvitals.__main__": {"trainvitals.cli"},
    "trainvitals.diagnostics": {"torch", "numpy", "scipy", "pyhessian", "trainvitals.schema"},
    "trainvitals.probes": {"torch", "numpy", "trainvitals.diagnostics", "trainvitals.schema", "trainvitals.alerts",
                           "trainvitals.integrations.forwarder", "trainvitals.integrations.sink",
                           "trainvitals.store.writer", "trainvitals.store.errors", "trainvitals.store.resuming",
                           "trainvitals.store.tagging", "trainvitals.redaction", "trainvitals.verdicts.condition",
                           "trainvitals.notebook", "trainvitals.run"},
    "trainvitals.store": {"numpy", "psutil", "psycopg", "trainvitals.schema", "trainvitals.redaction"},
    "trainvitals.checkpoints": {"torch", "numpy", "rich", "safetensors", "psutil", "trainvitals.diagnostics",
                                "trainvitals.probes", "trainvitals.schema", "trainvitals.run",
                                "trainvitals.store.writer"},
    "trainvitals.verdicts": {"numpy", "scipy", "trainvitals.schema", "trainvitals.store.reader"},
    "trainvitals.alerts": {"trainvitals.schema", "trainvitals.verdicts", "trainvitals.store.reader"},
    "trainvitals.run_table": {"pandas", "trainvitals.run", "trainvitals.store.errors", "trainvitals.schema"},
    "trainvitals.annotating": {"psycopg", "trainvitals.run", "trainvitals.store"},
    "trainvitals.notebook": {"IPython", "trainvitals.run", "trainvitals.schema", "trainvitals.store.errors",
                             "trainvitals.views.tiles"},
    "trainvitals.run": {"numpy", "pandas", "plotly", "trainvitals.notebook", "trainvitals.views.figures",  # when asked
                        "trainvitals.store.postgres_address", "trainvitals.store.postgres_source",
                        "trainvitals.store.source", "trainvitals.verdicts", "trainvitals.store.reader",
                        "trainvitals.store.catalogue", "trainvitals.store.errors", "trainvitals.schema"},
    "trainvitals.views": {"streamlit", "plotly", "pandas", "numpy", "tsdownsample", "trainvitals.run",
                          "trainvitals.verdicts",
                          "trainvitals.store.reader", "trainvitals.store.errors", "trainvitals.schema",
                          "trainvitals.store.postgres_address"},
    "trainvitals.integrations": {"torch", "lightning", "transformers", "accelerate"},  # and the public names
    "trainvitals.integrations.forwarder": {"numpy", "trainvitals.integrations.sink", "trainvitals.schema"},
    **{f"trainvitals.integrations.{tool}": {tool, "torch", "trainvitals.integrations.sink"}
       for tool in ("tensorboard", "wandb", "mlflow", "trackio")},
    "trainvitals.integrations.huggingface": {"torch", "transformers", "trainvitals.integrations"},
    "trainvitals.integrations.lightning": {"torch", "lightning", "trainvitals.integrations"},
    "trainvitals.demo": {"torch", "sklearn"},  # and the public names, as a user's script
    "trainvitals.sample_runs": {"torch", "sklearn", "numpy"},  # likewise
    "trainvitals.sample_runs.packing": {"trainvitals.sample_runs", "trainvitals.store.rows"},  # changes a run's header
    "trainvitals.cli": {"typer", "trainvitals.commands"},
    "trainvitals.exchange": {"numpy", "pandas", "pyarrow", "psycopg", "tensorboard", "trainvitals.run",
                             "trainvitals.schema", "trainvitals.store", "trainvitals.redaction"},
    "trainvitals.commands": {"typer", "rich", "torch", "pandas", "trainvitals.run", "trainvitals.schema",
                             "trainvitals.demo", "trainvitals.diagnostics.registry", "trainvitals.alerts",
                             "trainvitals.verdicts.condition",
                             "trainvitals.store.catalogue", "trainvitals.store.errors", "trainvitals.store.filesystems",
                             "trainvitals.store.fragments", "trainvitals.store.repair", "trainvitals.store.retention",
                             "trainvitals.store.shipping", "trainvitals.store.shipped_writer", "trainvitals.exchange",
                             "trainvitals.store.postgres_address", "trainvitals.store.postgres_connection",
                             "trainvitals.store.postgres_schema", "trainvitals.annotating", "trainvitals.views.report",
                             "trainvitals.run_table", "trainvitals.checkpoints.progress_bar", "psycopg",
                             "trainvitals.sample_runs"},
}  # fmt: skip


def module_files() -> Iterator[tuple[str, Path]]:
    """Yield every module of the package by its import name."""
    for top in TOP_FOLDERS:
        for path in sorted((CHECKOUT / top).rglob("*.py")):
            parts = list(path.relative_to(CHECKOUT).with_suffix("").parts)
            if top != "trainvitals":
                parts = ["trainvitals", *parts]
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(source: str) -> set[str]:
    """Return the modules that a source imports; `from a import b` gives `a.b` within the package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            ours = node.module.split(".")[0] == "trainvitals"
            found |= {f"{node.module}.{alias.name}" if ours else node.module for alias in node.names}
    return found


def layer_of(module: str) -> str:
    return max((name for name in ALLOWED if module == name or module.startswith(f"{name}.")), key=len)


def forbidden(module: str, source: str) -> set[str]:
    """Return what the module imports and its layer may not."""
    layer = layer_of(module)
    allowed = {*ALLOWED[layer], *({layer} if layer != "trainvitals" else ())}
    wrong = set()
    for name in imports_of(source):
        is_standard = name.split(".")[0] in sys.stdlib_module_names
        is_public = name in ("trainvitals", "trainvitals.__version__")
        if not is_standard and not is_public and not any(name == a or name.startswith(f"{a}.") for a in allowed):
            wrong.add(name)
    return wrong


@pytest.mark.parametrize(("module", "path"), [pytest.param(*found, id=found[0]) for found in module_files()])
def test_a_module_imports_only_what_its_layer_may(module, path):
    assert forbidden(module, path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("trainvitals.views.charts", "import torch", "torch"),
        ("trainvitals.views.charts", "def f():\n    from torch import nn", "torch"),
        ("trainvitals.schema", "import numpy", "numpy"),
        ("trainvitals.diagnostics.oui", "from trainvitals.store import writer", "trainvitals.store.writer"),
        ("trainvitals.store.codec", "from trainvitals.probes.watch import watch", "trainvitals.probes.watch.watch"),
        ("trainvitals.probes.watch", "from trainvitals.store import reader", "trainvitals.store.reader"),
    ],
)  # fmt: skip
def test_the_rule_itself_finds_what_is_forbidden(module, source, wrong):
    assert forbidden(module, source) == {wrong}


def python(code: str, folder: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=folder,
                          env=environment, check=False, timeout=120)  # fmt: skip


@pytest.mark.parametrize("module", ["trainvitals", "trainvitals.views.dashboard", "trainvitals.run", "trainvitals.cli"])
def test_torch_stays_out_at_run_time(module):
    done = python(f"import sys, {module}\nsys.exit('torch was imported' if 'torch' in sys.modules else 0)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", TOP_FOLDERS[1:])
def test_a_bare_import_says_the_right_name(name):
    done = python(f"import {name}")
    assert done.returncode == 1
    assert f"import trainvitals.{name}" in done.stderr


def test_packages_of_pyproject_are_the_folders():
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {name for name, path in module_files() if path.name == "__init__.py"}
    scripts = {"trainvitals.views.app_pages"}  # page files: run by Streamlit, never imported, so no __init__ is needed
    assert set(settings["packages"]) == folders | scripts
    assert len(settings["packages"]) == len(set(settings["packages"]))
    for name in settings["packages"]:
        top = name.removeprefix("trainvitals.").split(".")[0]
        assert (settings["package-dir"].get(f"trainvitals.{top}") == top) == (top in TOP_FOLDERS[1:])


def test_every_folder_with_python_files_is_a_package():
    folders = {path.parent for top in TOP_FOLDERS for path in (CHECKOUT / top).rglob("*.py")}
    packages = {path.parent for _, path in module_files() if path.name == "__init__.py"}
    assert {folder.name for folder in folders - packages} <= {"app_pages"}


def test_no_file_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "helpers", "misc", "common"}
    assert [str(path) for _, path in module_files() if path.stem in drawers] == []


def test_every_diagnostic_has_a_test_file():
    modules = [path for path in (CHECKOUT / "diagnostics").rglob("*.py") if path.name != "__init__.py"]
    tests = {path.name for path in (CHECKOUT / "tests").rglob("test_*.py")}
    tests |= {"test_base.py"} if "test_contract.py" in tests else set()  # the base is tested on all that stand on it
    assert [path.name for path in modules if f"test_{path.stem}.py" not in tests] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_path_that_a_document_names_exists(document):
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    spoken = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|toml|txt)|(?:[\w-]+/)+)`", text)
    example = {"diagnostics/gradient_sparsity.py", "tests/diagnostics/test_gradient_sparsity.py"}  # of CONTRIBUTING
    recorded = {"runs/"}  # made by the first run
    absent = [path for path in {*linked, *spoken} - example - recorded if not (CHECKOUT / path).exists()]
    assert absent == []
