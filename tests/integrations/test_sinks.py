"""Sinks with the real libraries: what they are given can be read back with the library's own reader."""

from __future__ import annotations

import sqlite3
import threading
import time

import numpy as np
import pytest

from trainvitals.integrations import forwarder
from trainvitals.integrations.forwarder import Forwarder
from trainvitals.integrations.sink import Sink
from trainvitals.schema import Reading

READINGS = {
    "loss.train": Reading(0.5), "oui.layers": Reading(np.array([0.25, 0.75]), keys=("fc1", "fc2")),
    "nc1": Reading.absent("one class"), "el2n": Reading(np.zeros(500), keys=tuple(map(str, range(500)))),
}  # fmt: skip
NUMBERS = {"loss.train": 0.5, "oui.layers/fc1": 0.25, "oui.layers/fc2": 0.75, "mine": 3.0}


class Kept(Sink):
    def __init__(self, fails_at=None):
        self.records, self.fails_at, self.is_closed = [], fails_at, False

    def write(self, step, numbers):
        if step == self.fails_at:
            raise ConnectionError("gone")
        self.records.append((step, dict(numbers)))

    def close(self):
        self.is_closed = True


def forwarded(*sinks, steps=(0, 10)):
    forwarding = Forwarder(sinks)
    for step in steps:
        forwarding.put(step, READINGS, {"mine": 3.0})
    forwarding.close()
    return forwarding


def test_numbers_come_in_order_without_what_is_missing_or_has_a_number_for_every_sample():
    kept = Kept()
    forwarded(kept)
    assert kept.records == [(0, NUMBERS), (10, NUMBERS)]
    assert kept.is_closed


def test_a_sink_that_fails_is_left_out_and_the_others_go_on():
    broken, kept = Kept(fails_at=10), Kept()
    forwarding = forwarded(broken, kept, steps=(0, 10, 20))
    assert [step for step, _ in broken.records] == [0]
    assert [step for step, _ in kept.records] == [0, 10, 20]
    assert forwarding.failed == ["Kept is left out from now on: ConnectionError: gone"]


def test_a_sink_that_hangs_holds_nothing_up_and_drops_are_counted(monkeypatch):
    monkeypatch.setattr(forwarder, "MOST_WAITING", 3)
    let_go = threading.Event()

    class Hanging(Kept):
        def write(self, step, numbers):
            let_go.wait(20)

    forwarding = Forwarder([Hanging()])
    for step in range(20):
        forwarding.put(step, {}, {"mine": 1.0})
    assert forwarding.num_dropped >= 16
    let_go.set()
    forwarding.close()


def test_tensorboard_reads_them(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from trainvitals.integrations.tensorboard import TensorBoardSink

    forwarded(TensorBoardSink(tmp_path))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(NUMBERS)
    assert [(e.step, e.value) for e in events.Scalars("oui.layers/fc2")] == [(0, 0.75), (10, 0.75)]


def test_mlflow_reads_them(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="an optional tool")
    from trainvitals.integrations.mlflow import MlflowSink

    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.tracking.MlflowClient(uri)
    run = client.create_run(client.create_experiment("digits", str(tmp_path)))
    forwarded(MlflowSink(run.info.run_id, uri))
    found = client.get_metric_history(run.info.run_id, "oui.layers/fc2")
    assert [(m.step, m.value) for m in found] == [(0, 0.75), (10, 0.75)]


def test_wandb_takes_them_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="an optional tool")
    from trainvitals.integrations.wandb import WandbSink

    monkeypatch.setenv("WANDB_SILENT", "true")
    sink = WandbSink(project="digits", mode="offline", dir=str(tmp_path))
    forwarded(sink)
    (file,) = tmp_path.rglob("*.wandb")
    deadline = time.monotonic() + 20  # its own process writes, and is not waited for
    while b"trainvitals/oui.layers/fc2" not in (written := file.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"trainvitals/oui.layers/fc2" in written
    assert b"trainvitals/step" in written


def test_trackio_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio", reason="an optional tool")
    from trainvitals.integrations.trackio import TrackioSink

    forwarded(TrackioSink("digits", name="one"))
    (file,) = tmp_path.rglob("digits.db")
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    assert [step for step, _ in rows] == [0, 10]
    assert "oui.layers/fc2" in str(rows[0][1])
