"""The documents' own code: the quickstart runs, the worked example works, the tree is the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trainvitals as tv
from trainvitals.cli import app

CHECKOUT = Path(__file__).parent.parent
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language; a block without one is of the language ""."""
    return [body for found, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
            if found == language]  # fmt: skip


def environment(*path: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}


def test_the_quickstart_runs_as_it_stands(tmp_path):
    (code,) = blocks(README, "python")
    assert len(code.strip().splitlines()) <= 12
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env=environment(CHECKOUT), check=False, timeout=200)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "value" in done.stdout
    with tv.open_run("quickstart", tmp_path / "runs") as run:
        assert run.status == "finished"
        assert len(run.series("loss.heldout")) > 1


def tree_paths(text: str) -> list[str]:
    """Return the paths of an annotated tree, two blanks a level."""
    stack: list[str] = []
    found = []
    for line in text.splitlines():
        name = line.split()[0]
        level = (len(line) - len(line.lstrip())) // 2
        stack[level:] = [name]
        found.append("".join(stack))
    return found


def test_the_tree_shows_what_is_there():
    tree = next(block for block in blocks(README, "") if "diagnostics/" in block)
    listed = tree_paths(tree)
    assert [path for path in listed if not (CHECKOUT / path).exists()] == []
    folders = {path.name + "/" for path in CHECKOUT.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    ours = {folder for folder in folders if not folder.startswith(".") and folder not in {"build/", "dist/", "runs/"}}
    assert ours <= set(listed)
    parts = {f"trainvitals/{p.name}/" for p in (CHECKOUT / "trainvitals").iterdir() if (p / "__init__.py").exists()}
    assert parts <= set(listed)


def test_every_command_and_page_is_in_the_readme():
    from trainvitals.views.dashboard import ORDER

    assert [c.name for c in app.registered_commands if f"| `trainvitals {c.name}" not in README] == []
    assert [title for _, title, *_ in ORDER if f"| {title} |" not in README] == []


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    documents = README + (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", documents, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.slow
def test_adding_a_diagnostic_takes_the_two_files_of_the_guide(tmp_path):
    """In a copy of the package: both files in place, then their test, the contract tests and the catalogue."""
    diagnostic, test = blocks((CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "python")
    for folder in ("diagnostics", "probes", "trainvitals", "tests"):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    (tmp_path / "diagnostics" / "gradient_sparsity.py").write_text(diagnostic)
    (tmp_path / "tests" / "diagnostics" / "test_gradient_sparsity.py").write_text(test)
    tests = ["tests/diagnostics/test_gradient_sparsity.py", "tests/diagnostics/test_contract.py"]
    for words in (["-m", "pytest", "-q", *tests], ["-m", "trainvitals", "metrics", "grad.sparsity"]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True,
                              env=environment(tmp_path), check=False, timeout=200)  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Gradient sparsity" in done.stdout
