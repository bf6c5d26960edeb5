import json
import sqlite3

import pytest
from typer.testing import CliRunner

from trainvitals.cli import app
from trainvitals.commands import doctor as doctor_module
from trainvitals.schema import Record
from trainvitals.store import opening
from trainvitals.store.liveness import this_process
from trainvitals.store.reader import RunReader
from trainvitals.store.writer import RunWriter


def call(*words, code=0):
    result = CliRunner().invoke(app, ["doctor", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def damaged(tmp_path):
    """A run with one chunk damaged."""
    with RunWriter.create(tmp_path, "run", {}, {}) as writer:
        for step in range(3000):
            writer.append(Record(step, 0.0, scalars={"a": float(step % 17)}))
    connection = sqlite3.connect(writer.path)
    connection.execute("UPDATE bodies SET body = zeroblob(length(body)) WHERE id = (SELECT min(id) FROM bodies)")
    connection.commit()
    connection.close()
    return writer


def test_damage_is_found_by_verify_alone(tmp_path, damaged):
    assert "WRONG run" not in call("--store", tmp_path)
    output = call("--store", tmp_path, "--verify", code=1)
    assert f"WRONG run {damaged.id}: records 0 to 1023 of series 1" in output
    assert "the rest is read. Try: trainvitals doctor --repair" in output


def test_repair_keeps_the_rest_and_the_old_file(tmp_path, damaged):
    output = call("--store", tmp_path, "--repair")
    assert f"ok    run {damaged.id}: repaired, 1976 points kept; lost: chunk body 1" in output
    assert (tmp_path / f"{damaged.path.name}.damaged").exists()
    assert RunReader(damaged.path).series("a").points.step[0] == 1024
    assert "whole" in call("--store", tmp_path, "--verify")


def test_what_cannot_be_repaired_stays_wrong(tmp_path):
    (tmp_path / "noise.sqlite").write_bytes(b"noise" * 500)
    output = call("--store", tmp_path, "--repair", code=1)
    assert "WRONG run noise: could not be repaired" in output


def test_a_live_run_is_verified_and_not_touched(tmp_path):
    with RunWriter.create(tmp_path, "run", {}, {}) as writer:
        checks = {c["subject"]: c for c in json.loads(call("--store", tmp_path, "--repair", "--json"))}
        assert checks[f"run {writer.id}"]["found"] == "whole"


def test_a_network_file_system_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_module, "network_type", lambda folder: "nfs4")
    assert "file system: nfs4, shared by machines" in call("--store", tmp_path)


def test_a_log_whose_process_is_gone_becomes_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "network_type", lambda folder: "nfs4")
    monkeypatch.setattr(opening, "this_process", lambda: {**this_process(), "pid": 2**22 + 1})
    writer = RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=60)
    writer.append(Record(1, 0.0, scalars={"a": 1.0}))
    assert writer.flush(20)
    log = writer.path.read_bytes()
    writer.close()
    writer.path.unlink()
    left = tmp_path / f"{writer.id}.fragments"
    left.write_bytes(log)
    assert "repaired, 1 points kept; lost: nothing" in call("--store", tmp_path, "--repair")
    assert not left.exists()
    assert len(RunReader(tmp_path / f"{writer.id}.sqlite").series("a").points) == 1

