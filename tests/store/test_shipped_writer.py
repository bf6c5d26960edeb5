"""A run whose store is a database, from `tv.watch` to the reader: training first, always."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from servers import unused_port
from typer.testing import CliRunner

import trainvitals as tv
from trainvitals.cli import app
from trainvitals.schema import Record, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.writer import RunWriter

SECRET = "s3cret-Pa55"
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def spool(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINVITALS_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


def train(store, **options):
    torch.manual_seed(0)
    x, y = torch.randn(20, 4), torch.arange(20) % 3
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tv.watch(model, optimizer, loss=F.cross_entropy, train=(x, y), store=store, name="small", probes="light",
                  every=2, **options) as run:  # fmt: skip
        run.tag("baseline", "sweep")
        run.note(f"password={SECRET} is no secret here")
        for _ in range(6):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            run.log(mine=1.0)
    return run


def call(*words, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_a_watched_run_is_in_the_database_and_everything_reads_it_there(address, spool, tmp_path):
    watched = train(address, config={"lr": 0.1, "db": {"password": SECRET}})
    assert watched.path.parent == spool
    with tv.open_run("latest", store=address) as run, tv.open_run(watched.path) as file:
        assert run.id == watched.id
        assert run.status is Status.FINISHED
        assert run.names() == file.names()
        for name in run.names():
            assert run.series(name).equals(file.series(name))
        assert run.tags == ("baseline", "sweep")
        assert run.meta["config"] == {"lr": 0.1, "db": {"password": "***"}}
        assert "password=***" in run.note
        assert SECRET not in str(run.path)
    (summary,) = tv.list_runs(address)
    assert (summary.id, summary.tags) == (watched.id, ("baseline", "sweep"))
    table = tv.runs(address)
    assert table.loc[0, "config.lr"] == 0.1
    assert table.loc[0, "mine"] == 1.0
    output = call("runs", "--store", address) + call("show", "latest", "--store", address)
    assert watched.id in output
    points = json.loads(call("get", "latest", "mine", "--store", address, "--json"))
    assert len(points["points"]) == 6
    call("tag", watched.id, "late", "--remove", "sweep", "--store", address)
    call("note", watched.id, "second line", "--store", address)
    assert "is there already" in call("ship", watched.path, "--to", address)  # what was changed there stays
    with tv.open_run(watched.id, store=address) as run:
        assert run.tags == ("baseline", "late")
        assert run.note.splitlines()[-1] == "second line"
    call("export", watched.id, "--to", tmp_path / "archive", "--store", address)
    with tv.open_run(tmp_path / "archive") as run:
        assert run.tags == ("baseline", "late")
        assert run.series("mine")["value"].tolist() == [1.0] * 6
    for written in spool.rglob("*"):
        assert SECRET.encode() not in written.read_bytes(), written
    assert SECRET not in output


def test_a_database_that_is_away_is_a_warning_and_the_run_is_shipped_later(address, spool, server):
    nobody = address.replace(f":{server.port}/", f":{unused_port()}/")
    with pytest.warns(RuntimeWarning) as told:
        with_short_wait(lambda: train(nobody))
    text = " ".join(str(one.message) for one in told)
    assert "training goes on" in text
    assert "trainvitals ship" in text
    assert SECRET not in text
    (path,) = spool.glob("*.sqlite")
    with tv.open_run(path) as run:
        assert run.num_dropped == 0
        assert len(run.series("mine")) == 6
    assert "shipped" in call("ship", path, "--to", address)
    with tv.open_run("small", store=address) as run:
        assert len(run.series("mine")) == 6


def with_short_wait(action):
    from trainvitals.store import shipped_writer

    seconds, shipped_writer.CLOSE_SECONDS = shipped_writer.CLOSE_SECONDS, 0.1
    started = []
    popen = subprocess.Popen
    try:
        shipped_writer.subprocess.Popen = lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
        return action()
    finally:
        shipped_writer.CLOSE_SECONDS = seconds
        shipped_writer.subprocess.Popen = popen
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.replace(SECRET, "wrong-Pa55"), "password authentication failed"),
        (lambda a: a.replace("/runs_", "/no_such_"), "does not exist"),
        (lambda a: a + "?sslmode=require", "does not support SSL"),
        (lambda a: a + "?no_such_option=1", "no_such_option"),
    ],
    ids=["password", "database", "tls", "option"],
)
def test_a_database_that_refuses_is_an_error_before_training_without_the_password(address, spool, change, words):
    with pytest.raises(StoreError, match="expected") as refused:
        train(change(address))
    assert words in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "wrong-Pa55" not in str(refused.value)
    assert not list(spool.glob("*")) if spool.exists() else True
    for command in (("runs", "--store"), ("show", "latest", "--store")):
        output = call(*command, change(address), code=1)
        assert SECRET not in output
        assert "wrong-Pa55" not in output


def test_ship_reads_the_address_from_standard_input_and_follows_to_the_end(address, spool):
    writer = RunWriter.create(spool, "offline", {}, {})
    writer.append(Record(1, 0.0, {}, {"loss": 1.0}))
    writer.close()
    for words, code in (([writer.path, "--to", "-", "--follow"], 0), ([writer.path, "--to", "runs/"], 1),
                        (["no such run", "--to", "-", "--store", spool], 2)):  # fmt: skip
        result = CliRunner().invoke(app, ["ship", *map(str, words)], input=f"{address}\n")
        assert result.exit_code == code, result.output
        assert SECRET not in result.output
    with tv.open_run(writer.id, store=address) as run:
        assert run.series("loss")["value"].tolist() == [1.0]


KILLED = """
import os, signal, sys, time
from trainvitals.schema import Record
from trainvitals.store.shipped_writer import create_writer
if __name__ == "__main__":
    writer = create_writer(sys.stdin.readline().strip(), "killed", {}, {})
    for step in range(3000):
        writer.append(Record(step, time.time(), {}, {"loss": float(step)}))
    assert writer.flush(60)
    print(writer.id, writer.shipper.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_shipper_outlives_a_trainer_that_was_killed_and_its_address_is_on_no_command_line(address, spool):
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", KILLED], input=f"{address}\n", capture_output=True, text=True,
                          env=environment, timeout=60, check=False)  # fmt: skip
    run_id, pid = done.stdout.split()
    command_line = Path(f"/proc/{pid}/cmdline")
    if command_line.exists():
        assert SECRET.encode() not in command_line.read_bytes()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(StoreError):  # no tables yet
            if any(run.status is Status.CRASHED for run in tv.list_runs(address)):
                break
        time.sleep(0.1)
    with tv.open_run(run_id, store=address) as run:
        assert run.status is Status.CRASHED
        assert len(run.series("loss")) == 3000


def test_without_the_driver_the_message_says_what_to_install(address, spool, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("psycopg", "trainvitals.store.postgres_co",
                                                                  "trainvitals.store.postgres_so",
                                                                  "trainvitals.store.postgres_sc",
                                                                  "trainvitals.store.shipping"))]:  # fmt: skip
        monkeypatch.delitem(sys.modules, name)
    import trainvitals.store as package

    for name in ("postgres_connection", "postgres_source", "postgres_schema", "shipping"):
        monkeypatch.delattr(package, name, raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for action in (lambda: train(address), lambda: tv.list_runs(address)):
        with pytest.raises(StoreError, match="pip install 'trainvitals\\[postgres\\]'"):
            action()
