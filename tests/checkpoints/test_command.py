"""`trainvitals analyze` as a user runs it: in a folder with a module of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import live_training as live
from typer.testing import CliRunner

import trainvitals as tv
from trainvitals.cli import app

PROJECT = """
import sys
sys.path.insert(0, {tests!r})
from checkpoints import live_training as live
build, loss = live.build_double, live.loss

def probes():
    given = live.probes()
    return {{"train": given["batch"], "heldout": given["heldout"]}}

def batch_alone():
    return live.probes()["batch"]

def typo():
    return {{"train": live.probes()["batch"], "helduot": 1}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> live.Trained:
    trained = live.train(tmp_path, ["loss.train", "loss.heldout"], 4)
    (tmp_path / "my_project.py").write_text(PROJECT.format(tests=str(Path(__file__).parent.parent)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    return trained


def analyzed(*words: str):
    return CliRunner().invoke(app, ["analyze", *words])


ALL = ("--build", "my_project:build", "--loss", "my_project:loss", "--workers", "1", "--out", "mine", "--what",
       "loss.train", "--what", "loss.heldout")  # fmt: skip


def test_it_writes_a_run_with_the_live_numbers_and_says_where(project):
    done = analyzed("checkpoints", *ALL, "--data", "my_project:probes")
    assert done.exit_code == 0, done.output
    run = tv.open_run("mine", "runs")
    assert run.id in done.output
    live.assert_same_numbers(tv.open_run(project.run), run, 1e-6)
    assert "analyze 8/8" in done.stderr or "analyze 4/4" in done.stderr
    again = analyzed("checkpoints", *ALL, "--data", "my_project:probes")
    assert again.exit_code == 0
    assert len(tv.list_runs("runs")) == 1
    assert analyzed("checkpoints", *ALL, "--data", "my_project:probes", "--fresh").exit_code == 0
    assert len(tv.list_runs("runs")) == 2


def test_without_a_model_weights_are_measured(project):
    done = analyzed("checkpoints", "--what", "weights.norm", "--what", "path.pca", "--workers", "1")
    assert done.exit_code == 0, done.output
    names = tv.open_run("checkpoints", "runs").names()
    assert {"weights.norm.value", "path.pca.coordinates"} <= set(names)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("checkpoints", "--build", "my_project.build"), 2, "expected MODULE:FUNCTION"),
        (("checkpoints", "--build", "my_project:biuld"), 1, "expected a function at 'my_project:biuld', got Attribute"),
        (("checkpoints", "--build", "no_such_module:f"), 1, "ModuleNotFoundError"),
        (("checkpoints", *ALL, "--data", "my_project:typo"), 2, "got helduot from --data"),
        (("absent", *ALL, "--data", "my_project:probes"), 1, "got nothing at absent"),
        (("checkpoints", *ALL[:2]), 1, "expected build= and batch= together"),
        (("checkpoints", "--what", "weihgts"), 1, "did you mean weights"),
    ],
    ids=["no colon", "no function", "no module", "odd key", "no folder", "no data", "unknown metric"],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_an_exit_code(words, code, said, project):
    done = analyzed(*words)
    assert done.exit_code == code, done.output
    assert said in " ".join((done.output + done.stderr).replace("│", " ").split())


def test_the_help_says_that_functions_are_code_and_checkpoints_are_not():
    done = analyzed("--help")
    words = " ".join(done.output.split())
    assert "Importing runs the module's code" in words
    assert "never executed" in words
    assert "trainvitals analyze checkpoints/" in words


@pytest.mark.slow
def test_processes_find_the_functions_of_the_folder_that_the_command_runs_in(project):
    words = [sys.executable, "-W", "ignore", "-m", "trainvitals", "analyze", "checkpoints", *ALL[:4], *ALL[6:10],
             "--data", "my_project:batch_alone", "--workers", "2"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(tv.__file__).parent.parent)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert tv.open_run("mine", "runs").series("loss.train")["step"].tolist() == [0, 3, 6, 9]
