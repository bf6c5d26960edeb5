"""A run that was killed is compacted by the function that its writer would have used."""

import sqlite3
from itertools import pairwise

import numpy as np

from trainvitals.schema import Reading, Record
from trainvitals.store.compaction import compact, hot_frames
from trainvitals.store.database import connect_writer
from trainvitals.store.interning import Interned
from trainvitals.store.reader import RunReader
from trainvitals.store.rows import Rows
from trainvitals.store.schema_sql import POINTS_PER_CHUNK, ROWS_PER_SUMMARY
from trainvitals.store.summaries import decode_summaries, merge
from trainvitals.store.writer import RunWriter


def write(folder, num_steps):
    writer = RunWriter.create(folder, "run", {}, {}, flush_seconds=60)
    for step in range(num_steps):
        readings = {"rare": Reading(float(step))} if step % 50 == 0 else {}
        writer.append(Record(step, step / 7, readings, {"a": float(step), "b": np.nan if step % 3 else 1.0}))
        if step % 200 == 199:
            assert writer.flush(20)
    assert writer.flush(20)
    return writer


def contents(path):
    reader = RunReader(path)
    return {name: reader.series(name).points for name in ("a", "b", "rare")}


def test_compacting_a_file_from_outside_changes_nothing_that_a_reader_sees(tmp_path):
    writer = write(tmp_path, 3 * POINTS_PER_CHUNK - 100)
    before = contents(writer.path)
    connection = connect_writer(writer.path)
    rows = Rows(connection)
    assert hot_frames(connection)[0]
    rows.begin()
    assert compact(rows, Interned(rows).layouts) == []
    rows.commit()
    assert hot_frames(connection) == ([], [])
    connection.close()
    after = contents(writer.path)
    for name, points in before.items():
        for part in ("seq", "step", "time", "value"):
            np.testing.assert_array_equal(getattr(after[name], part), getattr(points, part))
    writer.close()


def test_no_body_is_left_behind_and_every_chunk_but_the_last_is_full(tmp_path):
    writer = write(tmp_path, 3 * POINTS_PER_CHUNK - 100)
    writer.close()
    connection = sqlite3.connect(writer.path)
    sizes = {}
    for series, summary in connection.execute("SELECT series, summary FROM chunks ORDER BY series, first_seq"):
        sizes.setdefault(series, []).append(int(decode_summaries([summary])["num_points"][0]))
    assert sorted(map(sum, sizes.values())) == [60, 2972, 2972]
    assert all(size == POINTS_PER_CHUNK for chunks in sizes.values() for size in chunks[:-1])
    bodies = {id for (id,) in connection.execute("SELECT id FROM bodies")}
    assert bodies == {id for (id,) in connection.execute("SELECT body FROM chunks")}
    assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    connection.close()


def test_every_eight_complete_rows_have_one_summary_above_them_whatever_the_rhythm(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {}, flush_seconds=60, max_records=10**6)
    num_chunks = ROWS_PER_SUMMARY**2 + 3
    rng = np.random.default_rng(0)
    for step in range(num_chunks * POINTS_PER_CHUNK + 10):
        writer.append(Record(step, 0.0, {}, {"a": float(step % 777)}))
        if rng.random() < 1e-3:
            assert writer.flush(20)
    writer.close()
    connection = sqlite3.connect(writer.path)
    counts = dict(connection.execute("SELECT level, count(*) FROM chunks GROUP BY level"))
    assert counts == {0: num_chunks + 1, 1: ROWS_PER_SUMMARY, 2: 1}
    levels = [
        decode_summaries([s for (s,) in connection.execute(
            "SELECT summary FROM chunks WHERE level = ? ORDER BY first_seq", (level,))])
        for level in (0, 1, 2)
    ]  # fmt: skip
    connection.close()
    for below, above in pairwise(levels):
        for i, row in enumerate(above):
            assert merge(below[i * ROWS_PER_SUMMARY : (i + 1) * ROWS_PER_SUMMARY])[0] == row
    assert levels[2]["num_points"][0] == ROWS_PER_SUMMARY**2 * POINTS_PER_CHUNK
