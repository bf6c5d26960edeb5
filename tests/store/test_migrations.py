import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from trainvitals.schema import Record
from trainvitals.store.catalogue import list_folder
from trainvitals.store.codec import Frames, encode_arrays, encode_axis, encode_chunk, encode_frames
from trainvitals.store.errors import NewerSchemaError
from trainvitals.store.migrations import MIGRATIONS, migrate, version_of
from trainvitals.store.reader import RunReader
from trainvitals.store.writer import RunWriter


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


def add_notes(connection):
    connection.execute("CREATE TABLE notes (text TEXT)")


def fail_halfway(connection):
    connection.execute("CREATE TABLE tags (text TEXT)")
    connection.execute("this is no SQL")


def tables(connection):
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_new_file_is_brought_to_the_newest_version(connection):
    assert migrate(connection, "run") == len(MIGRATIONS) == version_of(connection)
    assert {"header", "chunks", "hot", "vectors"} <= tables(connection)


def test_an_old_file_goes_forward_and_a_current_one_stays(connection):
    migrate(connection, "run")
    assert migrate(connection, "run", (*MIGRATIONS, add_notes)) == len(MIGRATIONS) + 1
    assert "notes" in tables(connection)
    assert migrate(connection, "run", (*MIGRATIONS, add_notes)) == len(MIGRATIONS) + 1


def test_a_migration_that_fails_leaves_the_version_before(connection):
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, "run", (*MIGRATIONS, add_notes, fail_halfway))
    assert version_of(connection) == len(MIGRATIONS) + 1
    assert "notes" in tables(connection)
    assert "tags" not in tables(connection)
    assert not connection.in_transaction


def test_a_newer_file_is_refused_by_writer_reader_and_list(tmp_path):
    writer = RunWriter.create(tmp_path, "new", {}, {})
    writer.close()
    connection = sqlite3.connect(writer.path, isolation_level=None)
    connection.execute("PRAGMA user_version = 99")
    newest = len(MIGRATIONS)
    with pytest.raises(NewerSchemaError, match=rf"expected .* version {newest} or older, got version 99 .* upgrade"):
        migrate(connection, str(writer.path))
    connection.close()
    with pytest.raises(NewerSchemaError, match="99"):
        RunReader(writer.path).header()
    (run,) = list_folder(tmp_path)
    assert "version 99" in run.problem


# ---- from version 1


def file_of_version_1(folder, num_steps=5000):
    """Return the path of a run as TrainVitals 0.0 wrote it: chunks with few words, no checksums of rows."""
    path = folder / "old.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, "run", MIGRATIONS[:1])
    header = {"id": "old", "name": "old run", "started": 1e9, "meta": {"seed": 1}, "process": {}}
    connection.executemany("INSERT INTO header VALUES (?, ?)", [(k, json.dumps(v)) for k, v in header.items()])
    connection.execute("INSERT INTO state VALUES (1, 'finished', 'done', 2e9, ?, ?, ?, 0)",
                       (num_steps - 1, num_steps, num_steps + 1))  # fmt: skip
    connection.execute("INSERT INTO series VALUES (1, 'loss', 0)")
    connection.execute("INSERT INTO series VALUES (2, 'v', 0)")
    connection.execute("INSERT INTO texts VALUES (1, '[\"a\", \"b\"]')")
    connection.execute("INSERT INTO layouts VALUES (1, ?)", (np.array([1], "<i4").tobytes(),))
    connection.execute("INSERT INTO events VALUES (1, 3, 1e9, 'warning', 'hot')")
    connection.execute("INSERT INTO vectors VALUES (1, 2, 7, 7, 1e9, 1, ?)",
                       (encode_arrays({"value": np.ones(2)}),))  # fmt: skip
    cold = num_steps // 1024 * 1024
    for first in range(0, cold, 1024):
        at = np.arange(first, first + 1024)
        body = encode_chunk(encode_axis(at, at, at / 4), np.sin(at))
        connection.execute("INSERT INTO bodies VALUES (?, ?)", (first + 1, body))
        connection.execute("INSERT INTO chunks VALUES (1, ?, ?, 1024, ?, ?, 0, 0, 0, 0, 0, 0, NULL)",
                           (first, first + 1, first, first + 1023))  # fmt: skip
    at = np.arange(cold, num_steps)
    frames = Frames(at, at, at / 4, np.sin(at)[:, None])
    connection.execute("INSERT INTO hot VALUES (1, 1, ?, ?)", (len(at), encode_frames(frames)))
    connection.close()
    return path


def check_old(reader, num_steps=5000):
    points = reader.series("loss").points
    np.testing.assert_array_equal(points.value, np.sin(np.arange(num_steps)))
    np.testing.assert_array_equal(points.time, np.arange(num_steps) / 4)
    (vector,) = reader.series("v").vectors
    assert (vector.step, vector.keys) == (7, ("a", "b"))
    assert [event.message for event in reader.events()] == ["hot"]
    assert (reader.header().name, reader.header().message, reader.header().last_step) == ("old run", "done", 4999)
    assert reader.damage() == []


def test_a_file_of_version_1_is_read_and_left_as_it_is(tmp_path):
    path = file_of_version_1(tmp_path)
    before = path.read_bytes()
    check_old(RunReader(path))
    few = RunReader(path).series("loss", max_points=40).points
    assert len(few) <= 40
    (run,) = list_folder(tmp_path)
    assert (run.name, run.problem) == ("old run", None)
    assert path.read_bytes() == before


def test_a_file_of_version_1_goes_on_and_is_then_of_the_newest_version(tmp_path):
    path = file_of_version_1(tmp_path)
    with RunWriter.resume(path, {}) as writer:
        writer.append(Record(5000, 1e9, scalars={"loss": 0.5}))
    reader = RunReader(path)
    assert len(reader.series("loss").points) == 5001
    assert reader.damage() == []
    connection = sqlite3.connect(path)
    assert version_of(connection) == len(MIGRATIONS)
    connection.close()


def test_a_damaged_chunk_of_an_old_file_costs_itself_and_is_told(tmp_path):
    path = file_of_version_1(tmp_path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE bodies SET body = zeroblob(100) WHERE id = 1025")
    connection.close()
    reader = RunReader(path)
    assert len(reader.series("loss").points) == 5000 - 1024
    assert "a chunk of series 1 was damaged" in reader.events()[-1].message


INTERRUPTED = """
    import os, sqlite3, sys
    from trainvitals.store import migrations
    from trainvitals.store.rows import Rows
    calls, limit = 0, int(sys.argv[2])
    def counted(name, real):
        def call(*arguments, **options):
            global calls
            calls += 1
            if calls > limit:
                os.kill(os.getpid(), 9)
            return real(*arguments, **options)
        return call
    Rows.put = counted("put", Rows.put)
    Rows.delete = counted("delete", Rows.delete)
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    migrations.migrate(connection, "run")
    print("done", calls)
"""


def test_a_migration_that_is_killed_anywhere_leaves_the_version_before_and_is_made_the_next_time(tmp_path):
    path = file_of_version_1(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for limit in (0, 1, 4, 9):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(path), str(limit)],
                              env=environment, capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == -9, done.stderr
        connection = sqlite3.connect(path)
        assert version_of(connection) == 1
        connection.close()
        check_old(RunReader(path))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(path), "999"],
                          env=environment, capture_output=True, text=True, check=True)  # fmt: skip
    assert int(done.stdout.split()[1]) > 9
    check_old(RunReader(path))
