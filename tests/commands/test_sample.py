"""`trainvitals sample`: list, train, change, and refuse."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

import trainvitals as tv
from trainvitals.cli import app
from trainvitals.sample_runs.catalogue import samples


def invoke(*words: object):
    return CliRunner().invoke(app, ["sample", *map(str, words)])


def test_the_list_names_every_sample_in_reading_order():
    out = invoke("list").output
    places = [out.index(f" {each.name} ") for each in samples()]
    assert places == sorted(places)


def test_one_changed_run_is_trained_and_recorded(tmp_path):
    done = invoke("double-descent", "--set", "width=30", "--set", "num_steps=3", "--store", tmp_path)
    assert done.exit_code == 0, done.output
    (run,) = tv.list_runs(tmp_path)
    assert run.name == "double-descent"
    assert tv.open_run(run.path).last_step == 3


def test_all_arms_are_trained_and_the_claim_is_said(tmp_path):
    done = invoke("double-descent", "--seed", 1, "--store", tmp_path)
    assert done.exit_code == 0, done.output
    assert "shown with seed 1: final test error at width 100" in done.output
    assert len(tv.list_runs(tmp_path)) == 7


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["groking"], 1, "did you mean grokking"),
        (["grokking", "double-descent"], 2, "expected one sample to train"),
        (["grokking", "--set", "lr=1"], 1, "expected a parameter of the sample grokking, got 'lr'"),
        (["open", "nothing"], 1, "expected the name of a sample"),
    ],
)
def test_wrong_words_are_refused_with_what_to_try(words, code, message):
    done = invoke(*words)
    assert done.exit_code == code
    assert message in " ".join(done.output.replace("│", " ").split())


@pytest.mark.slow
def test_recorded_runs_are_served_and_their_copies_are_gone_afterwards(tmp_path):
    words = (sys.executable, "-u", "-m", "trainvitals", "sample", "open", "double-descent")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            assert "with 7 recorded runs" in line
            assert len(list(tmp_path.glob("trainvitals-samples-*/*.sqlite"))) == 7
            with urllib.request.urlopen(line.split()[1], timeout=30) as page:
                assert page.status == 200
        finally:
            server.terminate()
            server.wait(timeout=30)
    assert list(tmp_path.glob("trainvitals-samples-*")) == []
