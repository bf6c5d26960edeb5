"""`trainvitals verdict`: words for a reader, JSON and exit codes for a script."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from trainvitals.cli import app
from trainvitals.schema import Record, Status
from trainvitals.store.writer import RunWriter

NUM_STEPS = 120


def record(folder, name, heldout, status=Status.FINISHED):
    """Record the losses of a run whose held-out loss is `heldout(step)`."""
    noise = np.random.default_rng(0).normal(size=(NUM_STEPS, 2)) * 0.003
    writer = RunWriter.create(folder, name, {}, {})
    for step in range(NUM_STEPS):
        fallen = float(np.exp(-step / 25))
        losses = {"loss.train": 2 * fallen + noise[step, 0], "loss.heldout": heldout(step) + noise[step, 1]}
        writer.append(Record(10 * step, time.time(), scalars=losses))
    assert writer.flush(30)
    if status is not None:
        writer.close(status)
    return writer


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    record(folder, "healthy", lambda s: 2 * float(np.exp(-s / 25)) + 0.1)
    record(folder, "overfits", lambda s: 2 * float(np.exp(-s / 15)) + 0.1 + 0.02 * max(0, s - 40))
    record(folder, "short", lambda s: 1.0).close()
    return folder


def call(*words, code=0):
    result = CliRunner().invoke(app, ["verdict", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def test_a_healthy_run_exits_with_0_and_says_so(store):
    said = call("healthy", "--store", store)
    assert "Nothing is found to be wrong." in said
    assert "Healthy: " in said


def test_an_overfitted_run_exits_with_3_and_says_since_when_on_what_evidence_and_what_to_try(store):
    said = call("overfits", "--store", store, code=3)
    assert "ALARM: Overfitting, since step" in said
    assert "loss.heldout" in said
    assert "try: " in said


def test_json_has_every_condition_with_its_evidence(store):
    verdicts = json.loads(call("overfits", "--store", store, "--json", code=3))
    found = {v["condition"]: v for v in verdicts}
    assert found["overfitting"]["state"] == "alarm"
    assert 300 <= found["overfitting"]["since"] <= 600  # the loss turns at step 400
    assert all(e["source"] for e in found["overfitting"]["evidence"])
    assert all(v["missing"] for v in verdicts if v["state"] == "unknown")


def test_following_a_finished_run_tells_once_and_ends(store):
    said = call("overfits", "--store", store, "--follow", code=3)
    assert said.count("Overfitting: alarm") == 1


def test_following_a_live_run_ends_with_it(tmp_path):
    writer = record(tmp_path, "live", lambda s: 2 * float(np.exp(-s / 25)) + 0.1, status=None)
    command = [sys.executable, "-m", "trainvitals", "verdict", "live", "--store", str(tmp_path), "--follow",
               "--every", "1"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(2)
        assert process.poll() is None
        writer.close(Status.FINISHED)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Nothing is found to be wrong." in said


@pytest.mark.parametrize(("words", "reason"), [
    (["--desktop"], "expected --follow"),
    (["--follow", "--mail", "a@b.org"], "expected --mail and --smtp"),
    (["--follow", "--mail", "a@b.org", "--smtp", "me@mail:port"], "USER@"),
    (["--follow", "--webhook", "http://hooks.example"], "https"),
])  # fmt: skip
def test_bad_usage_is_told(store, words, reason):
    result = CliRunner().invoke(app, ["verdict", "healthy", "--store", str(store), *words])
    assert result.exit_code in (1, 2)
    assert reason in result.output
