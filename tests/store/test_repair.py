"""Damaged files: what is wrong is noticed, the rest is read, and a repair keeps all of it."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainvitals.schema import Event, Reading, Record, Status
from trainvitals.store.catalogue import list_folder
from trainvitals.store.errors import StoreError
from trainvitals.store.reader import RunReader
from trainvitals.store.repair import repair
from trainvitals.store.writer import RunWriter

NUM_STEPS = 12_000
NAMES = ("a", "b", "c")


def value(name, step):
    return np.sin(step / 50) + NAMES.index(name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a finished run."""
    writer = RunWriter.create(tmp_path_factory.mktemp("whole"), "run", {"seed": 1}, {}, max_records=10**6)
    for step in range(NUM_STEPS):
        readings = {"v": Reading(np.full(40, step), keys=tuple(map(str, range(40))))} if step % 50 == 0 else {}
        writer.append(Record(step, 1e9 + step, readings, {name: value(name, step) for name in NAMES}))
    writer.event(Event(3, 0.0, "warning", "hot"))
    writer.close()
    return writer.path.read_bytes()


def read_all(path):
    """Read everything; return how many points came back, all of which must be right, and what was damaged."""
    reader = RunReader(path)
    num_points = 0
    names = reader.names()
    for name in NAMES:
        if name not in names:
            continue
        points = reader.series(name).points
        np.testing.assert_array_equal(points.value, value(name, points.step))
        np.testing.assert_array_equal(points.time, 1e9 + points.step)
        assert len(np.unique(points.step)) == len(points)
        few = reader.series(name, max_points=30).points
        assert np.isin(few.value, value(name, np.arange(NUM_STEPS))).all()
        num_points += len(points)
    vectors = reader.series("v").vectors if "v" in names else ()
    for vector in vectors:
        assert (vector.arrays["value"] == vector.step).all()
    reader.events()
    reader.descriptions()
    return num_points + len(vectors), reader.damage()


TOTAL = 3 * NUM_STEPS + NUM_STEPS // 50


def test_a_whole_file_is_not_damaged(tmp_path, whole):
    (tmp_path / "x.sqlite").write_bytes(whole)
    assert read_all(tmp_path / "x.sqlite") == (TOTAL, [])


def test_one_damaged_chunk_costs_itself_alone(tmp_path, whole):
    (tmp_path / "x.sqlite").write_bytes(whole)


    connection = sqlite3.connect(tmp_path / "x.sqlite")
    (body,) = connection.execute("SELECT body FROM bodies WHERE id = 5").fetchone()
    damaged = bytearray(body)
    damaged[len(body) // 2] ^= 16
    connection.execute("UPDATE bodies SET body = ? WHERE id = 5", (bytes(damaged),))
    connection.commit()
    connection.close()
    num_points, damage = read_all(tmp_path / "x.sqlite")
    assert num_points == TOTAL - 1024
    assert len(damage) == 1
    assert "does not match its checksum" in damage[0]


def test_flipped_bits_are_noticed_where_they_matter_and_the_rest_is_read(tmp_path, whole):
    """A flip in a page's unused bytes harms nothing; any other is noticed, and no number is ever wrong."""
    rng = random.Random(0)
    lost, silent = [], 0
    for _ in range(60):
        damaged = bytearray(whole)
        bit = rng.randrange(8 * 4096, 8 * len(whole))  # page 1 is the next test's
        damaged[bit // 8] ^= 1 << bit % 8
        path = tmp_path / "x.sqlite"
        path.write_bytes(damaged)
        num_points, damage = read_all(path)
        assert damage or num_points == TOTAL
        silent += not damage
        lost.append(TOTAL - num_points)
    assert np.median(lost) <= 1024
    assert max(lost) <= TOTAL / 2
    assert silent < 20


def test_a_cut_file_gives_what_is_before_the_cut(tmp_path, whole):
    counts = []
    for share in (0.35, 0.6, 0.85, 0.999):
        path = tmp_path / "x.sqlite"
        path.write_bytes(whole[: int(share * len(whole))])
        num_points, damage = read_all(path)
        assert damage
        assert RunReader(path).header().name == "run"
        counts.append(num_points)
    assert counts == sorted(counts)
    assert counts[1] > 0.3 * TOTAL
    assert counts[-1] > 0.9 * TOTAL


@pytest.mark.parametrize("harm", ["bits", "cut", "page"])
def test_a_repaired_run_has_all_that_could_be_read_and_is_whole(tmp_path, whole, harm):
    path = tmp_path / "x.sqlite"
    damaged = bytearray(whole)
    rng = random.Random(1)
    if harm == "bits":
        for _ in range(4):
            damaged[rng.randrange(3 * 4096, len(whole))] ^= 1
    elif harm == "cut":
        del damaged[int(0.8 * len(whole)) :]
    else:
        at = 4096 * rng.randrange(20, len(whole) // 4096 - 1)
        damaged[at : at + 4096] = rng.randbytes(4096)
    path.write_bytes(damaged)
    before, damage = read_all(path)
    assert damage
    done = repair(path)
    assert done.path == path
    assert done.damage
    assert done.kept.read_bytes() == damaged
    after, left = read_all(path)
    assert left == []
    assert after == done.num_points >= before
    assert after > 0.5 * TOTAL
    reader = RunReader(path)
    assert reader.header().status is Status.FINISHED
    assert reader.events()[-1].kind == "repaired"
    assert reader.series("a", max_points=100).points.step[0] == reader.series("a").points.step[0]
    (run,) = list_folder(tmp_path)
    assert run.problem is None


def test_a_killed_run_is_repaired_with_its_log(tmp_path):
    script = (
        "import os, sys\nfrom trainvitals.schema import Record\nfrom trainvitals.store.writer import RunWriter\n"
        "w = RunWriter.create(sys.argv[1], 'run', {}, {})\n"
        "for s in range(1500): w.append(Record(s, 1e9 + s, {}, {'a': float(s)}))\n"
        "w.flush(20); print(w.path, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
    path = Path(done.stdout.strip())
    assert Path(f"{path}-wal").exists()
    result = repair(path)
    assert (result.num_points, result.damage) == (1500, ())
    assert not Path(f"{path}-wal").exists()
    header = RunReader(path).header()
    assert (header.status, header.last_step, header.num_points) == (Status.CRASHED, 1499, 1500)


def test_a_live_run_is_not_repaired(tmp_path):
    with RunWriter.create(tmp_path, "run", {}, {}) as writer, pytest.raises(StoreError, match="nobody writes"):
        repair(writer.path)


def test_what_cannot_be_read_at_all_is_left_as_it_is(tmp_path, whole):
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"noise" * 1000)
    with pytest.raises(StoreError):
        repair(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.sqlite"]


def test_two_repairs_keep_two_files(tmp_path, whole):
    path = tmp_path / "x.sqlite"
    path.write_bytes(whole)
    first, second = repair(path), repair(path)
    assert first.kept != second.kept
    assert first.num_points == second.num_points == TOTAL
    shutil.rmtree(tmp_path)
