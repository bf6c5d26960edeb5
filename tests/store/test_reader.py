import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainvitals.schema import Description, Event, Question, Reading, Record, ReferenceLine, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.reader import RunReader
from trainvitals.store.schema_sql import POINTS_PER_CHUNK
from trainvitals.store.writer import RunWriter

ROOT = Path(__file__).parents[2]
RICH = Reading(
    value=np.array([3.0, np.nan, -np.inf]), error=np.array([0.1, 0.2, 0.3]), converged=False, keys=("a", "b", "c"),
    definition="hessian.top v1", hvps=12, seconds=0.25,
    details={
        "residuals": [1e-3, float("nan")], "engine": "own", "grid": np.linspace(0, 1, 5), "num": np.int64(3),
        "eigenvectors": np.ones((100, 3)), "object": object(), "long": list(range(100)),
    },
    provenance={"step": 7, "batch": "abc", "mode": "eval", "dtype": "float32", "passes": 2},
)  # fmt: skip


def record(step, readings=None, **scalars):
    return Record(step, 1.7e9 + step, readings or {}, scalars)


def write(folder, records, *, flush_every=None, closed=True, **create):
    writer = RunWriter.create(folder, "run", {"seed": 1}, {}, **create)
    for i, item in enumerate(records):
        writer.append(item)
        if flush_every and i % flush_every == 0:
            assert writer.flush(20)
    assert writer.flush(20)
    if closed:
        writer.close()
    return writer


@pytest.mark.parametrize("closed", [True, False])
def test_a_reading_comes_back_whole_without_what_is_too_big(tmp_path, closed):
    writer = write(tmp_path, [record(7, {"hessian.top": RICH, "nc1": Reading(2.5, 0.5)})], closed=closed)
    latest = RunReader(writer.path).latest()
    step, back = latest["hessian.top"]
    assert step == 7
    np.testing.assert_array_equal(back.value, RICH.value)
    np.testing.assert_array_equal(back.error, RICH.error)
    assert (back.converged, back.keys, back.missing) == (False, RICH.keys, None)
    assert (back.definition, back.hvps, back.seconds) == (RICH.definition, 12, 0.25)
    assert back.provenance == RICH.provenance
    assert sorted(back.details) == ["engine", "grid", "long", "num", "residuals"]
    np.testing.assert_array_equal(back.details["grid"], RICH.details["grid"])
    np.testing.assert_array_equal(back.details["long"], np.arange(100))
    assert back.details["residuals"][0] == 1e-3
    assert latest["nc1"] == (7, Reading(2.5, 0.5))
    writer.close()


def test_the_context_is_stored_once(tmp_path):
    readings = [record(s, {"m": Reading(float(s), definition="m v1", provenance={"step": s, "mode": "eval"})})
                for s in range(50)]  # fmt: skip
    writer = write(tmp_path, readings)
    connection = sqlite3.connect(writer.path)
    assert connection.execute("SELECT count(*) FROM texts").fetchone() == (1,)
    connection.close()
    assert RunReader(writer.path).latest()["m"][1].provenance == {"step": 49, "mode": "eval"}


def test_lists_matrices_and_empty_arrays_come_back(tmp_path):
    values = {"list": [1.0, 2.0], "matrix": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.empty(0)}
    writer = write(tmp_path, [record(1, {name: Reading(value) for name, value in values.items()})])
    latest = RunReader(writer.path).latest()
    for name, value in values.items():
        np.testing.assert_array_equal(latest[name][1].value, np.asarray(value))
    assert latest["matrix"][1].value.dtype == np.float32


def test_a_missing_point_is_not_a_nan(tmp_path):
    absent = Reading.absent("one class")
    reading = {1: Reading(float("nan")), 2: absent, 3: Reading(1.0), 4: absent}
    writer = write(tmp_path, [record(step, {"nc1": r}) for step, r in reading.items()])
    reader = RunReader(writer.path)
    points = reader.series("nc1").points
    assert points.step.tolist() == [1, 3]
    assert np.isnan(points.value[0])
    assert [(step, reason) for step, _, reason in reader.missing("nc1")] == [(2, "one class"), (4, "one class")]
    assert reader.latest()["nc1"] == (4, Reading.absent("one class"))
    assert reader.names() == ["nc1"]


STEP = st.integers(-(2**63), 2**63 - 1)
NUMBER = st.floats(width=64) | st.floats(width=32) | st.integers(-5, 5).map(float)


@given(st.lists(st.tuples(STEP, st.dictionaries(st.sampled_from("abc"), NUMBER)), max_size=30), st.integers(1, 10))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_logged_comes_back_sorted_by_step_in_order_of_arrival(tmp_path, logged, flush_every):
    writer = write(tmp_path, [Record(step, 1.0, {}, numbers) for step, numbers in logged], flush_every=flush_every,
                   closed=False)  # fmt: skip
    for _ in range(2):  # while it is written, and after
        reader = RunReader(writer.path)
        for name in "abc":
            expected = sorted(((step, numbers[name]) for step, numbers in logged if name in numbers),
                              key=lambda pair: pair[0])  # fmt: skip
            points = reader.series(name).points
            assert points.step.tolist() == [step for step, _ in expected]
            np.testing.assert_array_equal(points.value, np.array([value for _, value in expected]))
        writer.close()


@pytest.mark.parametrize("flush_every", [None, 100, 700])
def test_chunks_fill_up_whatever_the_rhythm_of_the_saves(tmp_path, flush_every):
    n = 2 * POINTS_PER_CHUNK + 300
    records = [record(i, {"rare": Reading(float(i), seconds=1.0)} if i % 7 == 0 else {}, loss=1 / (i + 1))
               for i in range(n)]  # fmt: skip
    writer = write(tmp_path, records, flush_every=flush_every)
    reader = RunReader(writer.path)
    np.testing.assert_array_equal(reader.series("loss").points.value, 1 / (np.arange(n) + 1))
    rare = reader.series("rare")
    np.testing.assert_array_equal(rare.points.step, np.arange(0, n, 7))
    assert (rare.seconds == 1.0).all()
    assert np.isnan(rare.error).all()
    assert reader.overview("loss")["num_points"].tolist() == [POINTS_PER_CHUNK, POINTS_PER_CHUNK, 300]
    assert reader.overview("rare")["num_points"].sum() == len(rare.points)
    assert reader.header().num_points == n + len(rare.points)


def test_the_overview_keeps_a_spike_and_counts_what_is_not_finite(tmp_path):
    values = np.sin(np.arange(3000) / 50)
    values[1500], values[2000:2003] = 1e9, np.nan
    writer = write(tmp_path, [record(i, loss=v) for i, v in enumerate(values)])
    overview = RunReader(writer.path).overview("loss")
    assert overview["high"]["value"].max() == 1e9
    assert 1500 in overview["high"]["step"]
    assert overview["num_nonfinite"].sum() == 3
    assert overview["max_step"][-1] == 2999


def test_a_range_of_steps_has_its_first_and_not_its_last(tmp_path):
    records = [record(i, {"v": Reading(np.ones(2))} if i % 100 == 0 else {}, loss=i) for i in range(3000)]
    writer = write(tmp_path, records, flush_every=500, closed=False)
    for _ in range(2):
        reader = RunReader(writer.path)
        assert reader.series("loss", 1000, 2050).points.step.tolist() == list(range(1000, 2050))
        assert [v.step for v in reader.series("v", 100, 300).vectors] == [100, 200]
        assert reader.series("loss", 2998).points.step.tolist() == [2998, 2999]
        assert len(reader.series("loss", 5, 5).points) == 0
        writer.close()


def test_a_run_that_went_back_keeps_both_passes(tmp_path):
    writer = write(tmp_path, [record(step, loss=10 * i + step) for i in range(2) for step in range(3)])
    points = RunReader(writer.path).series("loss").points
    assert points.step.tolist() == [0, 0, 1, 1, 2, 2]
    assert points.value.tolist() == [0, 10, 1, 11, 2, 12]


def test_descriptions_events_and_the_header_come_back(tmp_path):
    words = Description("m", "M", Question.WEIGHTS, "s", references=(ReferenceLine("2/η", 2.0, "Cohen 2021", 3.0),))
    writer = RunWriter.create(tmp_path, "Run 1", {"seed": 3, "path": Path("x")}, {"m": words})
    event = Event(3, 5.0, "warning", "<script>\x00 ☂")
    writer.event(event)
    writer.append(record(4, loss=1.0))
    assert writer.flush(20)
    reader = RunReader(writer.path)
    assert reader.descriptions() == {"m": words}
    assert reader.events() == [event]
    header = reader.header()
    assert (header.id, header.name, header.meta) == (writer.id, "Run 1", {"seed": 3, "path": "x"})
    assert (header.status, header.last_step, header.num_points) == (Status.LIVE, 4, 1)
    writer.close()


def test_an_empty_run_reads_as_empty(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {})
    for _ in range(2):
        reader = RunReader(writer.path)
        assert reader.names() == []
        assert reader.latest() == {}
        assert reader.events() == []
        assert len(reader.series("loss").points) == 0
        assert reader.header().last_step is None
        writer.close()


# ---- files as they are found


READ = """
    import os, sys
    from trainvitals.store.reader import RunReader
    if os.geteuid() == 0:  # root may write anywhere: become nobody, once all is imported
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    assert not os.access(os.path.dirname(sys.argv[1]), os.W_OK)
    reader = RunReader(sys.argv[1])
    print(len(reader.series("loss").points), reader.header().recorded_status)
"""


def read_as_anyone(path):
    """Read a run in a process that may not write there."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(READ), str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def read_only_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for parent in folder.parents:
        if parent.owner() == folder.owner() and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o011)  # another user may pass through
    yield folder
    folder.chmod(0o755)


def put_away(source, folder, *suffixes):
    for suffix in suffixes:
        target = folder / f"run.sqlite{suffix}"
        shutil.copy(f"{source}{suffix}", target)
        target.chmod(0o444)
    folder.chmod(0o555)
    return folder / "run.sqlite"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("suffixes", [("",), ("", "-wal"), ("", "-wal", "-shm")], ids=lambda s: "".join(s) or "closed")
def test_a_read_only_folder_opens_whatever_was_left_in_it(tmp_path, read_only_folder, suffixes):
    writer = write(tmp_path, [record(i, loss=i) for i in range(100)], closed=len(suffixes) == 1)
    path = put_away(writer.path, read_only_folder, *suffixes)
    num_points, status = read_as_anyone(path)
    assert (num_points, status) == ("100", "finished" if len(suffixes) == 1 else "live")
    writer.close()


def test_a_run_file_with_a_log_and_no_index_is_recovered(tmp_path):
    writer = write(tmp_path, [record(i, loss=i) for i in range(100)], closed=False)
    copy = tmp_path / "copy.sqlite"
    shutil.copy(writer.path, copy)
    shutil.copy(f"{writer.path}-wal", f"{copy}-wal")
    assert len(RunReader(copy).series("loss").points) == 100
    writer.close()


def test_a_torn_log_gives_what_was_committed_before_it(tmp_path):
    writer = write(tmp_path, [record(i, loss=i) for i in range(400)], flush_every=20, closed=False)
    copy, log = tmp_path / "copy.sqlite", Path(f"{writer.path}-wal").read_bytes()
    counts = []
    for share in (0.0, 0.3, 0.6, 1.0):
        for suffix in ("-wal", "-shm"):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
        shutil.copy(writer.path, copy)
        Path(f"{copy}-wal").write_bytes(log[: int(share * len(log))])
        points = RunReader(copy).series("loss").points
        assert points.step.tolist() == list(range(len(points)))
        counts.append(len(points))
    assert counts == sorted(counts)
    assert counts[-1] == 400
    writer.close()


def test_a_truncated_or_overwritten_file_is_an_error_in_words_or_still_read(tmp_path):
    records = [record(i, {"m": RICH}, loss=np.sin(i)) for i in range(3000)]
    whole = write(tmp_path, records).path.read_bytes()
    rng = np.random.default_rng(0)
    copy = tmp_path / "copy.sqlite"
    errors = []
    for _ in range(40):
        damaged = bytearray(whole)
        if rng.random() < 0.5:
            del damaged[int(rng.integers(1, len(whole))) :]
        else:
            at = int(rng.integers(0, len(whole) - 2000))
            damaged[at : at + 2000] = rng.bytes(2000)
        copy.write_bytes(damaged)
        reader = RunReader(copy)
        for call in (reader.header, reader.latest, reader.events, reader.descriptions, lambda r=reader: r.series("m")):
            try:
                call()
            except StoreError as error:
                errors.append(str(error))
    assert errors  # most of a damaged file is still read
    assert all("expected a TrainVitals run file" in text for text in errors)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"not a database at all" * 100, "not a database"), (None, "no such file")],
)
def test_what_is_no_run_file_is_refused_with_its_reason(tmp_path, content, reason):
    path = tmp_path / "x.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"expected a TrainVitals run file, got .*x.sqlite.*{reason}.*;"):
        RunReader(path).names()


def test_the_file_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "mlflow.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE header (key, value)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        RunReader(path).names()
    assert path.read_bytes() == before


def test_a_folder_that_may_not_be_entered_any_more_is_an_error_in_words(tmp_path, monkeypatch):
    path = write(tmp_path, [record(1, loss=1.0)]).path

    def refuse(self, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(StoreError, match=r"expected a TrainVitals run file, got .* cannot be read: permission denied"):
        RunReader(path).header()


DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i8"])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=1, max_dims=2, min_side=0)))


@given(st.lists(st.tuples(STEP, ARRAYS), max_size=6))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_of_every_kind_come_back_at_whatever_step(tmp_path, logged):
    writer = write(tmp_path, [Record(step, 1.0, {"m": Reading(array)}) for step, array in logged])
    expected = sorted(logged, key=lambda pair: pair[0])
    found = RunReader(writer.path).series("m").vectors
    assert [vector.step for vector in found] == [step for step, _ in expected]
    for vector, (_, array) in zip(found, expected, strict=True):
        value = vector.arrays["value"]
        assert (value.shape, value.dtype) == (array.shape, array.dtype.newbyteorder("<"))
        np.testing.assert_array_equal(value, array)
