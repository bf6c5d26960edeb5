"""Few points of a long series: against a brute-force look at all points."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainvitals.schema import Reading, Record
from trainvitals.store import database
from trainvitals.store.codec import Points
from trainvitals.store.compaction import add_points
from trainvitals.store.migrations import migrate
from trainvitals.store.moment import Moment
from trainvitals.store.pyramid import ALL_STEPS, Pyramid
from trainvitals.store.reader import RunReader
from trainvitals.store.resolution import thin
from trainvitals.store.rows import Rows
from trainvitals.store.schema_sql import POINTS_PER_CHUNK, ROWS_PER_SUMMARY
from trainvitals.store.source import SqliteSource
from trainvitals.store.summaries import SUMMARY
from trainvitals.store.writer import RunWriter

FLOATS = st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf])


def points_of(values, steps=None):
    n = len(values)
    steps = np.arange(n) if steps is None else steps
    return Points(np.arange(n), np.asarray(steps, np.int64), np.arange(n) / 8, np.asarray(values, float))


class CountingSource(SqliteSource):
    """Counts what is read."""

    num_bodies = num_rows = 0

    def bodies(self, ids):
        self.num_bodies += len(ids)
        return super().bodies(ids)

    def chunk_rows(self, *arguments):
        rows = super().chunk_rows(*arguments)
        self.num_rows += len(rows)
        return rows


@pytest.fixture
def source_of():
    """Sources of one series "a" that is all in chunks."""
    connections = []

    def make(points):
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connections.append(connection)
        migrate(connection, "run")
        rows = Rows(connection)
        rows.begin()
        rows.put("series", (1, "a", 0))
        for start in range(0, len(points), 100 * POINTS_PER_CHUNK):
            add_points(rows, 1, points[start : start + 100 * POINTS_PER_CHUNK])
        rows.commit()
        return CountingSource(connection)

    yield make
    for connection in connections:
        connection.close()


def assert_faithful(thinned, points, max_points):
    """The points are some of the points, by step, with the ends and the extremes of the whole."""
    assert len(thinned) <= max_points
    assert np.all(thinned.step[1:] >= thinned.step[:-1])
    at = {int(seq): i for i, seq in enumerate(points.seq)}
    index = np.array([at[int(seq)] for seq in thinned.seq])
    for part in ("step", "time", "value"):
        np.testing.assert_array_equal(getattr(points, part)[index], getattr(thinned, part))
    order = np.argsort(points.step, kind="stable")
    assert thinned.seq[0] == points.seq[order[0]]
    assert thinned.seq[-1] == points.seq[order[-1]]
    finite = points.value[np.isfinite(points.value)]
    if len(finite):
        kept = thinned.value[np.isfinite(thinned.value)]
        assert (kept.min(), kept.max()) == (finite.min(), finite.max())
    assert np.isfinite(points.value).all() == np.isfinite(thinned.value).all()


@given(st.lists(st.tuples(FLOATS, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=200), st.integers(8, 50))
@settings(deadline=None)
def test_thinned_points_are_points_with_the_ends_and_the_extremes(pairs, max_points):
    values, steps = zip(*pairs, strict=True)
    points = points_of(values, steps)
    assert_faithful(thin(np.empty(0, SUMMARY), points, max_points), points, max_points)


def test_every_bucket_of_single_points_keeps_its_extremes():
    values = np.random.default_rng(0).normal(size=3000)
    thinned = thin(np.empty(0, SUMMARY), points_of(values), 102)  # 50 buckets of 60 steps
    kept = set(thinned.seq.tolist())
    for bucket in range(50):
        inside = np.flatnonzero(np.minimum(np.arange(3000) / 2999 * 50 // 1, 49) == bucket)
        assert {inside[np.argmin(values[inside])], inside[np.argmax(values[inside])]} <= kept


@pytest.mark.parametrize("num_chunks", [1, 7, 30, 100, 650])
@pytest.mark.parametrize("max_points", [8, 40, 1000])
def test_a_long_series_keeps_ends_spikes_and_gaps(source_of, num_chunks, max_points):
    rng = np.random.default_rng(num_chunks)
    n = num_chunks * POINTS_PER_CHUNK - 100
    values = rng.normal(size=n)
    spikes = rng.integers(0, n, 3)
    values[spikes] = [1e6, -1e6, np.nan]
    points = points_of(values)
    source = source_of(points)
    for steps in (ALL_STEPS, (0, n // 2), (n // 3 + 5, n // 3 + 5000), (n - 3, n + 7)):
        inside = points[(points.step >= steps[0]) & (points.step <= steps[1])]
        assert_faithful(Moment(source).thinned("a", steps, max_points), inside, max_points)
    assert source.damage == []


def test_summaries_that_share_a_bucket_give_its_extremes(source_of):
    points = points_of(np.random.default_rng(0).normal(size=400 * POINTS_PER_CHUNK))
    summaries, rest = Pyramid(source_of(points), 1).cells(100, 10)
    whole = Points.join(rest)
    thinned = thin(summaries, whole, 1000)
    kept = set(thinned.seq.tolist())
    assert len(summaries) > 30  # else there is nothing to see
    assert kept.issuperset(summaries["low"]["seq"].tolist())  # fewer summaries than buckets: each keeps both
    assert kept.issuperset(summaries["high"]["seq"].tolist())
    assert summaries["num_points"].sum() + len(whole) == len(points)


def test_reading_grows_with_the_logarithm_of_the_length(source_of):
    counts = []
    for num_chunks in (600, 600 * ROWS_PER_SUMMARY):
        source = source_of(points_of(np.zeros(num_chunks * POINTS_PER_CHUNK)))
        Moment(source).thinned("a", ALL_STEPS, 1000)
        counts.append((source.num_bodies, source.num_rows))
    assert all(num_bodies <= 4 for num_bodies, _ in counts)
    assert counts[1][1] <= counts[0][1] + 20 * ROWS_PER_SUMMARY


def test_a_run_that_went_back_shows_both_its_passes(source_of):
    n = 300 * POINTS_PER_CHUNK
    points = points_of(np.r_[np.zeros(n // 2), np.ones(n // 2)], np.r_[np.arange(n // 2), np.arange(n // 2)])
    thinned = Moment(source_of(points)).thinned("a", ALL_STEPS, 400)
    assert_faithful(thinned, points, 400)
    middle = thinned.value[(thinned.step > n / 8) & (thinned.step < n * 3 / 8)]
    assert {0.0, 1.0} == set(middle.tolist())


def test_one_step_for_all_points_is_read_from_summaries_too(source_of):
    source = source_of(points_of(np.arange(600.0 * POINTS_PER_CHUNK), np.zeros(600 * POINTS_PER_CHUNK)))
    thinned = Moment(source).thinned("a", ALL_STEPS, 100)
    assert thinned.value[[0, -1]].tolist() == [0.0, 600 * POINTS_PER_CHUNK - 1]
    assert source.num_bodies <= 4


def test_errors_and_times_stand_at_the_points_that_are_kept(tmp_path):
    n = 40 * POINTS_PER_CHUNK
    with RunWriter.create(tmp_path, "run", {}, {}, max_records=n + 1) as writer:
        for step in range(n):
            error = step / 7 if step % 3 else None
            reading = {"m": Reading(np.sin(step / 99), error, converged=step % 2 == 0, seconds=0.25)}
            writer.append(Record(step, 1e9 + step, reading, {}))
            if step == n - 500:
                assert writer.flush(60)
    for reader in (RunReader(writer.path),):
        series = reader.series("m", max_points=60)
        assert len(series.points) <= 60
        step = series.points.step
        np.testing.assert_array_equal(series.points.time, 1e9 + step)
        np.testing.assert_array_equal(series.error, np.where(step % 3, step / 7, np.nan))
        np.testing.assert_array_equal(series.converged, step % 2 == 0)
        assert (series.seconds == 0.25).all()


def test_arrays_are_taken_evenly_with_the_first_and_the_last(tmp_path):
    with RunWriter.create(tmp_path, "run", {}, {}) as writer:
        for step in range(100):
            writer.append(Record(step, 0.0, {"v": Reading(np.full(3, step), converged=True)}))
    series = RunReader(writer.path).series("v", max_points=12)
    steps = [vector.step for vector in series.vectors]
    assert (len(steps), steps[0], steps[-1]) == (12, 0, 99)
    assert set(np.diff(steps)) == {9}
    assert (series.vector_converged == 1).all()


def test_a_live_run_shows_what_is_hot(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=60)
    for step in range(5000):
        writer.append(Record(step, 0.0, {}, {"a": float(step)}))
        if step % 700 == 699 or step == 4999:
            assert writer.flush(20)
    with database.reading(writer.path) as connection:
        assert connection.execute("SELECT count(*) FROM hot").fetchone() != (0,)
    points = RunReader(writer.path).series("a", max_points=50).points
    assert points.value[[0, -1]].tolist() == [0.0, 4999.0]
    writer.close()
