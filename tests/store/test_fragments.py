"""A run on a network file system: a log that only grows, read like any other run."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainvitals.run import list_runs, open_run
from trainvitals.schema import Event, Reading, Record, Status
from trainvitals.store import fragments, opening
from trainvitals.store.codec import DamagedError
from trainvitals.store.errors import StoreError
from trainvitals.store.fragments import SUFFIX, FragmentLog, decode_changes, encode_changes, read_blocks
from trainvitals.store.reader import RunReader
from trainvitals.store.rows import COLUMNS
from trainvitals.store.writer import RunWriter

ROOT = Path(__file__).parents[2]
VALUE = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.binary(max_size=30) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20)  # fmt: skip
CHANGES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(list(COLUMNS)), st.lists(st.tuples(VALUE, VALUE), max_size=3)),
    max_size=4,
)


@pytest.fixture(autouse=True)
def _on_a_network(monkeypatch):
    monkeypatch.setattr(opening, "network_type", lambda folder: "nfs4")


def write(writer, steps):
    for step in steps:
        readings = {"v": Reading(np.full(3, step), keys=("a", "b", "c"))} if step % 100 == 0 else {}
        writer.append(Record(step, 1e9 + step, readings, {"loss": float(step)}))
        if step % 300 == 299:
            assert writer.flush(20)
    assert writer.flush(20)


def check(reader, num_steps):
    points = reader.series("loss").points
    assert points.step.tolist() == list(range(num_steps))
    assert points.value.tolist() == list(map(float, range(num_steps)))
    assert [v.step for v in reader.series("v").vectors] == list(range(0, num_steps, 100))


@given(CHANGES)
def test_changes_come_back(changes):
    block = encode_changes(changes)
    ((stop, content),) = read_blocks(block)
    assert stop == len(block)
    assert decode_changes(content) == changes


@given(st.lists(CHANGES, min_size=1, max_size=4), st.data())
def test_a_flipped_bit_costs_one_block_and_a_cut_the_last(batches, data):
    blocks = [encode_changes(changes) for changes in batches]
    whole = b"".join(blocks)
    cut = data.draw(st.integers(0, len(whole)))
    kept = [content for _, content in read_blocks(whole[:cut]) if content is not None]
    complete = sum(sum(map(len, blocks[: i + 1])) <= cut for i in range(len(blocks)))
    assert [decode_changes(content) for content in kept] == batches[:complete]
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    hit = next(i for i in range(len(blocks)) if bit // 8 < sum(map(len, blocks[: i + 1])))
    kept = [decode_changes(content) for _, content in read_blocks(bytes(damaged)) if content is not None]
    assert kept == batches[:hit] + batches[hit + 1 :]


def test_a_live_run_is_a_log_and_is_read_while_it_grows(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {"seed": 1}, {})
    assert writer.path.suffix == SUFFIX
    assert [file.name for file in tmp_path.iterdir()] == [writer.path.name]  # no log of SQLite's, no index
    reader = RunReader(writer.path)
    for end in (200, 1300, 2900):
        write(writer, range(len(reader.series("loss").points), end))
        check(reader, end)
        header = reader.header()
        assert (header.status, header.last_step, header.meta) == (Status.LIVE, end - 1, {"seed": 1})
    assert reader.series("loss", max_points=20).points.value[[0, -1]].tolist() == [0, 2899]
    (run,) = list_runs(tmp_path)
    assert (run.id, run.status, run.problem) == (writer.id, Status.LIVE, None)
    assert open_run(writer.id, tmp_path).last_step == 2899
    assert reader.damage() == []
    writer.close()


def test_a_finished_run_is_an_ordinary_file_and_a_reader_follows(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {})
    reader = RunReader(writer.path)
    write(writer, range(1500))
    check(reader, 1500)
    writer.event(Event(1500, 0.0, "warning", "hot"))
    writer.close(Status.FINISHED, "done")
    assert writer.path.suffix == ".sqlite"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".catalogue.jsonl", writer.path.name]
    assert os.stat(writer.path).st_mode & 0o777 == 0o600
    for again in (reader, RunReader(writer.path)):
        check(again, 1500)
        assert again.header().status is Status.FINISHED
        assert [event.message for event in again.events()] == ["hot"]
        assert again.damage() == []
    assert list_runs(tmp_path)[0].status is Status.FINISHED


def test_a_torn_end_is_passed_over_and_a_damaged_block_costs_itself(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=60)
    sizes = []
    for step in range(6):
        writer.append(Record(step, 0.0, scalars={"loss": float(step)}))
        assert writer.flush(20)
        sizes.append(writer.path.stat().st_size)
    whole = writer.path.read_bytes()
    torn = tmp_path / "torn.fragments"
    torn.write_bytes(whole[: sizes[4] + 10])
    assert RunReader(torn).series("loss").points.step.tolist() == [0, 1, 2, 3, 4]
    assert RunReader(torn).damage() == []
    damaged = bytearray(whole)
    damaged[sizes[2] + 40] ^= 1
    flipped = tmp_path / "flipped.fragments"
    flipped.write_bytes(damaged)
    reader = RunReader(flipped)
    assert reader.series("loss").points.step.tolist() == [0, 1, 2, 4, 5]
    (words,) = reader.damage()
    assert f"bytes {sizes[2]} to {sizes[3]} are no intact block" in words
    writer.close()


def test_a_killed_run_keeps_what_was_acknowledged_and_goes_on(tmp_path):
    script = """
        import sys, os, signal
        from trainvitals.schema import Record
        from trainvitals.store import opening
        from trainvitals.store.writer import RunWriter
        opening.network_type = lambda folder: "nfs4"
        writer = RunWriter.create(sys.argv[1], "killed", {}, {})
        for step in range(2000):
            writer.append(Record(step, 0.0, scalars={"loss": float(step)}))
        assert writer.flush(20)
        print(writer.path, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    path = Path(done.stdout.strip())
    assert RunReader(path).header().status is Status.CRASHED
    assert len(RunReader(path).series("loss").points) == 2000
    writer = RunWriter.resume(path, {})
    for step in range(2000, 2100):
        writer.append(Record(step, 0.0, scalars={"loss": float(step)}))
    writer.close()
    reader = RunReader(writer.path)
    assert writer.path.suffix == ".sqlite"
    assert not path.exists()
    assert reader.series("loss").points.step.tolist() == list(range(2100))
    assert reader.events()[0].kind == "resumed"
    assert reader.damage() == []


def test_a_second_process_that_appends_stops_the_first(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        writer = RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=60)
        with open(writer.path, "ab") as file:
            file.write(b"another's")
        writer.append(Record(1, 0.0, scalars={"loss": 1.0}))
        assert writer.flush(0.5) is False
        writer.close()
    assert len(caught) == 1
    assert "another's blocks in it" in str(caught[0].message)
    assert writer.num_dropped == 1


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path, monkeypatch):
    real = os.write
    state = {"full": False}

    def write_or_not(file, data):
        if state["full"]:
            real(file, bytes(data)[:7])  # torn, as a full disk leaves it
            raise OSError(28, "No space left on device")
        return real(file, data)

    monkeypatch.setattr(fragments.os, "write", write_or_not)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        writer = RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=0.01)
        for step in range(40):
            state["full"] = 10 <= step < 30
            writer.append(Record(step, 0.0, scalars={"loss": float(step)}))
            writer.flush(0.05 if state["full"] else 20)
        reader = RunReader(writer.path)
        assert reader.series("loss").points.step.tolist() == list(range(40))
        assert reader.damage() == []
        writer.close()
    assert len(caught) == 1
    assert writer.num_dropped == 0


def test_a_log_that_exists_is_not_begun_again(tmp_path):
    (tmp_path / "x.fragments").write_bytes(b"")
    with pytest.raises(FileExistsError):
        FragmentLog(tmp_path / "x.fragments")


@pytest.mark.parametrize("content", [b"", b"no log at all" * 50, None])
def test_what_is_no_log_is_an_error_in_words(tmp_path, content):
    path = tmp_path / "x.fragments"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match="expected a TrainVitals run file"):
        RunReader(path).header()
    if content is not None:
        (run,) = list_runs(tmp_path)
        assert run.problem
    with contextlib.suppress(StoreError):
        RunReader(path).names()


def test_a_block_that_names_what_is_no_table_of_ours_changes_nothing():
    block = bytearray(encode_changes([(0, "series", [(1, "a", 0)])]))
    content = bytearray(next(iter(read_blocks(bytes(block))))[1])
    content[1] = 200  # the place of the table
    with pytest.raises(DamagedError):
        decode_changes(bytes(content))
