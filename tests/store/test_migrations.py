import sqlite3

import pytest

from trainvitals.store.catalogue import list_folder
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
