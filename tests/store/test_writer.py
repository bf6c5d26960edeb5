import contextlib
import os
import re
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from trainvitals.run import open_run
from trainvitals.schema import Description, Event, Question, Reading, Record, Status
from trainvitals.store import opening
from trainvitals.store import writer as writer_module
from trainvitals.store.errors import StoreError
from trainvitals.store.reader import RunReader
from trainvitals.store.writer import RunWriter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(tmp_path):
    """Writers in one folder, closed at the end whatever happens."""
    with contextlib.ExitStack() as stack:

        def create(name="run", **limits):
            writer = RunWriter.create(tmp_path, name, {"seed": 1}, {}, **limits)
            stack.callback(writer.close)
            return writer

        yield create


def scalars(step, **values):
    return Record(step, 1.7e9 + step, scalars=values)


def run_python(script, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=120, **options,
    )  # fmt: skip


def test_the_file_is_named_by_the_slug_the_time_and_four_hex_digits(make):
    writer = make("Digits: MLP / größer ☂")
    assert writer.path.stem == writer.id
    assert re.fullmatch(r"digits-mlp-gr-er-\d{8}-\d{6}-[0-9a-f]{4}", writer.id)
    assert make("☂").id.startswith("run-")


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_the_file_and_its_log_are_the_owners_alone(make, tmp_path):
    writer = make()
    writer.append(scalars(1, loss=1.0))
    assert writer.flush(10)
    files = list(tmp_path.iterdir())
    assert len(files) == 3  # with the log and its index
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_closed_run_is_one_file_without_a_log(make, tmp_path):
    writer = make()
    writer.append(scalars(1, loss=1.0))
    writer.close(Status.FINISHED, "done")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".catalogue.jsonl", writer.path.name]
    connection = sqlite3.connect(writer.path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert connection.execute("SELECT count(*) FROM hot").fetchone() == (0,)
    assert connection.execute("SELECT status, message FROM state").fetchone() == ("finished", "done")
    connection.close()


def test_closing_twice_and_using_a_closed_writer_do_nothing_and_do_not_raise(make):
    writer = make()
    writer.close(Status.CRASHED, "first")
    writer.close(Status.FINISHED, "second")
    writer.append(scalars(1, loss=1.0))
    writer.event(Event(1, 0.0, "warning", "late"))
    writer.describe({})
    assert writer.flush(1) is False
    assert writer.num_dropped == 1
    assert RunReader(writer.path).header().message == "first"


def test_leaving_the_block_on_an_error_records_a_crash(tmp_path):
    with pytest.raises(ZeroDivisionError), RunWriter.create(tmp_path, "run", {}, {}) as writer:
        raise ZeroDivisionError("one by zero")
    header = RunReader(writer.path).header()
    assert (header.status, header.message) == (Status.CRASHED, "ZeroDivisionError: one by zero")


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_an_error_before_training(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"expected a folder where runs can be written, got .*file.* in RunWriter"):
        RunWriter.create(tmp_path / folder, "run", {}, {})


def test_acknowledged_points_are_seen_by_a_reader_at_once(make):
    writer = make(flush_seconds=60)
    for step in range(5):
        writer.append(scalars(step, loss=float(step)))
        assert writer.flush(10)
        assert RunReader(writer.path).series("loss").points.value.tolist() == list(range(step + 1))


def test_points_are_saved_without_a_flush_within_the_flush_time(make):
    writer = make(flush_seconds=0.02)
    writer.append(scalars(1, loss=1.0))
    deadline = time.monotonic() + 20
    while not len(RunReader(writer.path).series("loss").points) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(RunReader(writer.path).series("loss").points) == 1


def test_the_heart_beats_without_points(make):
    writer = make(flush_seconds=0.02)
    first = RunReader(writer.path).header().heartbeat
    deadline = time.monotonic() + 20
    while RunReader(writer.path).header().heartbeat <= first and time.monotonic() < deadline:
        time.sleep(0.01)
    assert RunReader(writer.path).header().heartbeat > first


def stop_saving(monkeypatch):
    """Make every save wait until the returned event is set."""
    gate, save = threading.Event(), writer_module.Saver.save

    def held(self, *arguments):
        gate.wait(60)
        return save(self, *arguments)

    monkeypatch.setattr(writer_module.Saver, "save", held)
    return gate


def test_arrays_are_dropped_first_then_records_and_both_are_counted(make, monkeypatch):
    gate = stop_saving(monkeypatch)
    writer = make(max_records=8, flush_seconds=60)
    array = Reading(np.ones(3))
    for step in range(12):
        writer.append(Record(step, 0.0, {"spectrum": array, "number": Reading(1.0)}, {"loss": float(step)}))
    # steps 0-3 whole, 4-7 without the array, 8-11 not at all
    assert writer.num_dropped == 4 * 1 + 4 * 3
    gate.set()
    assert writer.flush(20)
    reader = RunReader(writer.path)
    assert [v.step for v in reader.series("spectrum").vectors] == [0, 1, 2, 3]
    assert reader.series("loss").points.step.tolist() == list(range(8))
    assert reader.series("number").points.step.tolist() == list(range(8))
    (event,) = reader.events()
    assert event.kind == "dropped"
    assert "16 points were dropped" in event.message
    assert reader.header().num_dropped == 16


def test_arrays_are_dropped_when_they_take_too_much_memory(make, monkeypatch):
    gate = stop_saving(monkeypatch)
    monkeypatch.setattr(writer_module, "MAX_VECTOR_BYTES", 1000)
    writer = make(flush_seconds=60)
    for step in range(5):
        writer.append(Record(step, 0.0, {"spectrum": Reading(np.ones(50))}))  # 400 bytes
    assert writer.num_dropped == 3
    gate.set()
    assert writer.flush(20)
    writer.append(Record(9, 0.0, {"spectrum": Reading(np.ones(50))}))  # there is room again
    assert writer.flush(20)
    assert [v.step for v in RunReader(writer.path).series("spectrum").vectors] == [0, 1, 9]


class Full:
    """A connection whose disk is full while `is_full`."""

    def __init__(self, connection):
        self.connection, self.is_full = connection, False

    def execute(self, sql, *arguments):
        if self.is_full and sql == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return self.connection.execute(sql, *arguments)

    def __getattr__(self, name):
        return getattr(self.connection, name)


@pytest.fixture
def full_disk(monkeypatch):
    made = []
    connect = opening.connect_writer

    def wrapped(path):
        made.append(Full(connect(path)))
        return made[-1]

    monkeypatch.setattr(opening, "connect_writer", wrapped)
    return made


def test_a_full_disk_is_one_warning_and_nothing_that_fits_in_memory_is_lost(make, full_disk):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        writer = make(max_records=100, flush_seconds=0.01)
        writer.append(Record(0, 0.0, {"layers": Reading(np.ones(2), keys=("a", "b"))}, {"loss": 0.0}))
        assert writer.flush(10)
        full_disk[0].is_full = True
        for step in range(1, 50):
            writer.append(Record(step, 0.0, {f"m{step}": Reading(1.0, definition="d")}, {"loss": float(step)}))
        assert writer.flush(0.2) is False
        time.sleep(0.1)  # many failing saves
        full_disk[0].is_full = False
        assert writer.flush(20)
        writer.close()
    assert len(caught) == 1
    assert "disk is full" in str(caught[0].message)
    assert "training goes on" in str(caught[0].message)
    reader = RunReader(writer.path)
    assert reader.series("loss").points.value.tolist() == list(range(50))
    latest = reader.latest()
    assert all(latest[f"m{step}"][1].definition == "d" for step in range(1, 50))  # ids of rolled-back saves are gone
    assert writer.num_dropped == 0


def test_on_a_disk_that_stays_full_drops_are_counted_and_close_returns(make, full_disk):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        writer = make(max_records=10, flush_seconds=0.01)
        assert writer.flush(10)
        full_disk[0].is_full = True
        writer.append(scalars(0, loss=0.0))
        writer.flush(0.1)  # the batch that cannot be saved
        for step in range(1, 31):
            writer.append(scalars(step, loss=float(step)))
        writer.close()
    assert len(caught) == 1
    assert writer.num_dropped == 31
    assert len(RunReader(writer.path).series("loss").points) == 0


def test_a_warning_that_is_an_error_does_not_stop_the_writer(make, full_disk):
    writer = make(flush_seconds=0.01)  # pytest turns warnings into errors here
    full_disk[0].is_full = True
    writer.append(scalars(1, loss=1.0))
    assert writer.flush(0.1) is False
    full_disk[0].is_full = False
    assert writer.flush(20)
    assert len(RunReader(writer.path).series("loss").points) == 1


def test_what_cannot_be_stored_is_reported_and_takes_nothing_with_it(make):
    writer = make()
    writer.append(Record(1, 0.0, {"bad": Reading(np.array(["x"])), "good": Reading(2.0)}, {"loss": 1.0}))
    writer.append(Record(2, 0.0, {}, {"loss": 2.0, "text": "no number", "none": None}))  # type: ignore[dict-item]
    writer.append(Record(2**70, 0.0, {}, {"loss": 3.0}))
    writer.append(Record(3, 0.0, {}, {"loss": 4.0, "\ud800": 5.0}))
    assert writer.flush(10)
    reader = RunReader(writer.path)
    assert reader.series("loss").points.value.tolist() == [1.0, 2.0, 4.0]
    assert reader.series("good").points.value.tolist() == [2.0]
    assert reader.series("\\ud800").points.value.tolist() == [5.0]
    ((_, _, reason),) = reader.missing("bad")
    assert "expected an array of floats" in reason
    assert writer.num_dropped == 4
    assert any("could not be stored" in event.message for event in reader.events())


def test_a_fault_in_a_save_gives_the_batch_up_and_goes_on(make, monkeypatch):
    writer = make(flush_seconds=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module.Saver, "_save_frames", lambda *_: 1 / 0)
        writer.append(scalars(1, loss=1.0))
        assert writer.flush(0.3) is False
    writer.append(scalars(2, loss=2.0))
    assert writer.flush(10)
    assert RunReader(writer.path).series("loss").points.step.tolist() == [2]
    assert writer.num_dropped == 1


def test_descriptions_can_be_added_while_the_run_goes_on(make):
    writer = make()
    writer.describe({"a": Description("a", "A", Question.WEIGHTS, "first")})
    writer.describe({"a": Description("a", "A", Question.WEIGHTS, "second")})
    assert writer.flush(10)
    assert RunReader(writer.path).descriptions()["a"].summary == "second"


def test_threads_may_log_together(make):
    writer = make()
    threads = [
        threading.Thread(target=lambda k=k: [writer.append(scalars(i, **{f"s{k}": i})) for i in range(500)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(20)
    reader = RunReader(writer.path)
    assert all(reader.series(f"s{k}").points.value.tolist() == list(range(500)) for k in range(4))


FORK = """
    import os, sys, time
    from trainvitals.schema import Record
    from trainvitals.store.reader import RunReader
    from trainvitals.store.writer import RunWriter
    writer = RunWriter.create(sys.argv[1], "forked", {}, {}, flush_seconds=0.01)
    writer.append(Record(1, 0.0, scalars={"parent": 1.0}))
    writer.flush(10)
    child = os.fork()
    if child == 0:
        writer.append(Record(2, 0.0, scalars={"child": 1.0}))
        assert not writer.flush(0.1)
        assert writer.num_dropped == 1  # refused: no queue grows here for ever
        writer.close()
        sys.exit(0)  # with atexit and all
    assert os.waitpid(child, 0)[1] == 0
    for step in range(3, 6):
        writer.append(Record(step, 0.0, scalars={"parent": 1.0}))
        assert writer.flush(10)
    print(writer.path)
    writer.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_nothing_and_harms_nothing(tmp_path):
    done = run_python(FORK, tmp_path)
    assert done.returncode == 0, done.stderr
    reader = RunReader(done.stdout.strip())
    assert reader.names() == ["parent"]
    assert reader.series("parent").points.step.tolist() == [1, 3, 4, 5]
    assert reader.header().status is Status.FINISHED


QUOTA = """
    import resource, sys, warnings
    from pathlib import Path
    from trainvitals.schema import Record
    from trainvitals.store.writer import RunWriter
    writer = RunWriter.create(sys.argv[1], "quota", {}, {}, flush_seconds=0.01)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # the disk says no beyond it
        step = 0
        while step < 100_000:
            for _ in range(100):
                step += 1
                writer.append(Record(step, 0.0, scalars={f"s{i}": step * 0.1 for i in range(10)}))
            if not writer.flush(2):
                break
        assert len(caught) == 1, caught
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert writer.flush(30)
        writer.close()
    print(writer.path, step, writer.num_dropped)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_writes_that_the_system_refuses_are_made_up_for_when_it_allows_them_again(tmp_path):
    done = run_python(QUOTA, tmp_path)
    assert done.returncode == 0, done.stderr
    path, last_step, num_dropped = done.stdout.split()
    assert int(last_step) < 100_000  # it was refused
    assert num_dropped == "0"
    assert RunReader(path).series("s7").points.step.tolist() == list(range(1, int(last_step) + 1))


EXIT = """
    import sys
    from trainvitals.schema import Record
    from trainvitals.store.writer import RunWriter
    writer = RunWriter.create(sys.argv[1], "left", {}, {})
    writer.append(Record(1, 0.0, scalars={"loss": 1.0}))
    print(writer.path, flush=True)
    if sys.argv[2] == "raise":
        raise KeyError("layer")
"""


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [("end", Status.FINISHED, "without closing"), ("raise", Status.CRASHED, "KeyError: 'layer'")],
)
def test_a_run_that_nobody_closed_is_closed_at_exit(tmp_path, how, status, message):
    done = run_python(EXIT, tmp_path, how)
    reader = RunReader(done.stdout.strip())
    assert reader.series("loss").points.step.tolist() == [1]
    header = reader.header()
    assert header.status is status
    assert message in header.message


def test_progress_is_read_between_points(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {})
    writer.append(Record(step=10, time=1.0, scalars={"loss": 0.5}))
    writer.progress(25)
    assert writer.flush()
    with open_run(writer.path) as run:
        assert run.last_step == 25
        assert run.series("loss")["step"].tolist() == [10]
        writer.progress(40)
        writer.close()
        assert run.last_step == 40


@pytest.mark.parametrize("folder", [None, 3, "", "postgresql://host/runs"])
def test_what_is_no_folder_is_refused_and_makes_none(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="expected a folder where runs can be written"):
        RunWriter.create(folder, "run", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_first_look_is_looked_at_again(make, monkeypatch):
    failures = [sqlite3.OperationalError("database or disk is full")] * 3
    real = writer_module.Saver

    def saver(*arguments):
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(writer_module, "Saver", saver)
    writer = make(flush_seconds=0.01)
    writer.append(scalars(1, loss=1.0))
    assert writer.flush(20)
    assert len(RunReader(writer.path).series("loss").points) == 1
