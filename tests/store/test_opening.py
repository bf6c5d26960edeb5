"""Who may write a run: one process at a time, and a run that ended goes on."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest

from trainvitals.schema import Description, Question, Record, Status
from trainvitals.store import opening
from trainvitals.store.errors import StoreError
from trainvitals.store.liveness import this_process
from trainvitals.store.opening import continue_run, editing
from trainvitals.store.reader import RunReader
from trainvitals.store.writer import RunWriter

ROOT = Path(__file__).parents[2]


def write(writer, steps):
    for step in steps:
        writer.append(Record(step, 1e9 + step, scalars={"loss": float(step)}))
    assert writer.flush(20)


def test_a_finished_run_goes_on_and_an_event_marks_the_seam(tmp_path):
    first = RunWriter.create(tmp_path, "run", {"seed": 1}, {})
    write(first, range(1, 1501))
    first.close(Status.CRASHED, "out of memory")
    second = RunWriter.resume(first.path, {"new": Description("new", "N", Question.WEIGHTS, "s")})
    assert (second.id, second.path, second.resumed_at) == (first.id, first.path, 1500)
    write(second, range(1501, 3001))
    reader = RunReader(second.path)
    assert reader.header().status is Status.LIVE
    second.close()
    assert reader.series("loss").points.step.tolist() == list(range(1, 3001))
    assert reader.overview("loss")["num_points"].tolist() == [1024, 1024, 952]
    (seam,) = [event for event in reader.events() if event.kind == "resumed"]
    assert seam.step == 1500
    assert "goes on at step 1500 after a part that was crashed at step 1500" in seam.message
    header = reader.header()
    assert (header.status, header.num_points, header.meta) == (Status.FINISHED, 3000, {"seed": 1})
    assert "new" in reader.descriptions()
    assert reader.damage() == []


def test_a_run_that_went_back_to_a_checkpoint_says_so(tmp_path):
    first = RunWriter.create(tmp_path, "run", {}, {})
    write(first, range(100))
    first.close()
    second = RunWriter.resume(first.path, {}, step=60)
    write(second, range(60, 120))
    second.close()
    reader = RunReader(second.path)
    assert len(reader.series("loss", 60, 100).points) == 80  # both passes
    assert reader.events()[-1].step == 60
    assert "goes on at step 60 after a part that was finished at step 99" in reader.events()[-1].message


def test_drops_of_both_parts_are_counted(tmp_path):
    first = RunWriter.create(tmp_path, "run", {}, {})
    first.append(Record(1, 0.0, scalars={"a": None}))  # type: ignore[dict-item]
    assert first.flush(20)
    first.close()
    second = RunWriter.resume(first.path, {})
    second.append(Record(2, 0.0, scalars={"a": None}))  # type: ignore[dict-item]
    assert second.flush(20)
    second.close()
    assert RunReader(first.path).header().num_dropped == 2


def test_a_run_that_a_live_process_writes_is_refused_with_that_process(tmp_path):
    with RunWriter.create(tmp_path, "run", {}, {}) as writer:
        words = rf"expected a run that nobody writes, got .*{writer.id}.* process {os.getpid()} on .*live.*; wait"
        with pytest.raises(StoreError, match=words):
            RunWriter.resume(writer.path, {})
        with pytest.raises(StoreError, match="that nobody writes"), editing(writer.path):
            pass
        write(writer, range(3))  # it is none the worse
    assert len(RunReader(writer.path).series("loss").points) == 3


def test_of_two_that_continue_a_run_at_once_one_is_refused(tmp_path):
    RunWriter.create(tmp_path, "run", {}, {}).close()
    (path,) = tmp_path.glob("*.sqlite")
    script = """
        import sys, time
        from pathlib import Path
        from trainvitals.store.errors import StoreError
        from trainvitals.store.writer import RunWriter
        go = Path(sys.argv[2])
        print("ready", flush=True)
        while not go.exists():
            time.sleep(0.001)
        try:
            writer = RunWriter.resume(sys.argv[1], {})
        except StoreError as error:
            print("refused:", error, flush=True)
        else:
            print("writes", flush=True)
            sys.stdin.read()
            writer.close()
    """
    start = [sys.executable, "-c", textwrap.dedent(script), str(path), str(tmp_path / "go")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pair = [subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(2)]  # fmt: skip
    for child in pair:
        assert child.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    said = [child.stdout.readline() for child in pair]
    for child in pair:
        child.communicate()
    assert sorted(line.split(":")[0].strip() for line in said) == ["refused", "writes"]
    assert any("expected a run that nobody writes" in line for line in said)


def test_a_killed_run_goes_on(tmp_path):
    script = """
        import sys, os, signal
        from trainvitals.schema import Record
        from trainvitals.store.writer import RunWriter
        writer = RunWriter.create(sys.argv[1], "killed", {}, {})
        for step in range(2000):
            writer.append(Record(step, 0.0, scalars={"loss": float(step)}))
        assert writer.flush(20)
        print(writer.path, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    path = Path(done.stdout.strip())
    assert RunReader(path).header().status is Status.CRASHED
    writer = RunWriter.resume(path, {})
    write(writer, range(2000, 2100))
    writer.close()
    assert RunReader(path).series("loss").points.step.tolist() == list(range(2100))
    assert "cut off at step 1999" in RunReader(path).events()[0].message


def take_over_by_force(path):
    """What a trainer on another machine does that holds this one for dead."""
    connection = sqlite3.connect(path)
    connection.execute("UPDATE state SET lease = 'another'")
    connection.commit()
    connection.close()


def test_a_writer_whose_run_was_taken_over_stops_with_one_warning_and_counts_the_rest(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        writer = RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=60)
        write(writer, range(3))
        take_over_by_force(writer.path)
        writer.append(Record(3, 0.0, scalars={"loss": 3.0}))
        assert writer.flush(0.5) is False
        deadline = time.monotonic() + 10
        while writer._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.append(Record(4, 0.0, scalars={"loss": 4.0}))
        writer.close()
    assert [str(w.message).partition(" (")[0] for w in caught] == [
        "expected to be the only process that writes this run, got one that another has taken over"
    ]
    assert writer.num_dropped == 2
    assert len(RunReader(writer.path).series("loss").points) == 3
    assert RunReader(writer.path).header().recorded_status == "live"


@pytest.mark.parametrize(("seconds_silent", "is_refused"), [(1.0, True), (120.0, False)])
def test_a_run_of_another_machine_may_go_on_here_once_it_is_long_silent(tmp_path, monkeypatch, seconds_silent,
                                                                       is_refused):  # fmt: skip
    monkeypatch.setattr(opening, "this_process", lambda: {**this_process(), "host": "elsewhere/boot"})
    writer = RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=60)
    write(writer, range(3))
    monkeypatch.undo()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds_silent)
    if is_refused:
        with pytest.raises(StoreError, match="on elsewhere"):
            RunWriter.resume(writer.path, {})
    else:
        RunWriter.resume(writer.path, {}).close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the one that lost its run
        writer.close()


@pytest.mark.parametrize("content", [None, b"", b"no database" * 100])
def test_what_is_no_run_cannot_go_on(tmp_path, content):
    path = tmp_path / "x.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match="expected a TrainVitals run file"):
        continue_run(path)
    assert not (content is None and path.exists())


def test_a_run_that_ended_can_be_edited_and_is_one_file_again(tmp_path):
    with RunWriter.create(tmp_path, "run", {}, {}) as writer:
        write(writer, range(3))
    with editing(writer.path) as rows:
        rows.put("header", ("tags", '["a", "b"]'))
    assert RunReader(writer.path).header().tags == ("a", "b")
    with pytest.raises(ZeroDivisionError), editing(writer.path) as rows:
        rows.put("header", ("tags", "[]"))
        raise ZeroDivisionError
    assert RunReader(writer.path).header().tags == ("a", "b")
    assert not Path(f"{writer.path}-wal").exists()
    assert RunReader(writer.path).damage() == []


def test_words_about_the_run_are_saved_by_its_writer(tmp_path):
    with RunWriter.create(tmp_path, "run", {}, {}) as writer:
        writer.header("tags", ["x"])
        assert writer.flush(20)
        assert RunReader(writer.path).header().tags == ("x",)


def test_a_clock_that_jumps_costs_nothing(tmp_path, monkeypatch):
    """An hour back, then a day ahead: all points are there with the times they were given, and the run is live."""
    clock = {"jump": 0.0}
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + clock["jump"])
    with RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=0.05) as writer:
        expected = []
        for step in range(3000):
            clock["jump"] = -3600.0 if 1000 <= step < 2000 else 86400.0 if step >= 2000 else 0.0
            expected.append(round(time.time(), 6))
            writer.append(Record(step, expected[-1], scalars={"loss": 1.0}))
            if step % 1000 == 999:
                assert writer.flush(20)
                assert RunReader(writer.path).header().status is Status.LIVE
        points = RunReader(writer.path).series("loss").points
        assert points.time.tolist() == expected
        assert points.step.tolist() == list(range(3000))
