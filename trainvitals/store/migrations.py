"""Forward migrations of a run file, each inside one transaction; files of a newer version are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from trainvitals.store.codec import DamagedError, decode_chunk, row_checksum
from trainvitals.store.compaction import add_points
from trainvitals.store.errors import NewerSchemaError
from trainvitals.store.rows import Rows
from trainvitals.store.schema_sql import APPLICATION_ID, CHECKED_COLUMNS, VERSION_1, VERSION_2

Migration = Callable[[sqlite3.Connection], None]


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run statements one by one: `executescript` would commit the transaction that it is in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    run_script(connection, VERSION_1)


def _add_checksums_and_summaries(connection: sqlite3.Connection) -> None:
    """Version 2: a checksum in every row, and chunks with summaries of summaries above them.

    A chunk whose points are damaged cannot be summarised: it is left out, and an event says so.
    """
    run_script(connection, VERSION_2)
    old = connection.execute("SELECT series, body FROM chunks_1 ORDER BY series, first_seq").fetchall()
    rows = Rows(connection)
    for series, body in old:
        (data,) = connection.execute("SELECT body FROM bodies WHERE id = ?", (body,)).fetchone() or (b"",)
        try:
            add_points(rows, series, decode_chunk(data))
        except DamagedError:
            words = f"a chunk of series {series} was damaged and is left out of the newer file"
            rows.put("events", (rows.next_id("events"), 0, 0.0, "warning", words))
        rows.delete("bodies", (body,))
    connection.execute("DROP TABLE chunks_1")
    connection.create_function("checksum", -1, row_checksum, deterministic=True)
    for table, columns in CHECKED_COLUMNS.items():
        connection.execute(f"UPDATE {table} SET crc = checksum({', '.join(columns)})")


# the i-th one leads from version i to i + 1
MIGRATIONS: tuple[Migration, ...] = (_create, _add_checksums_and_summaries)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version of the file; 0 for a new one."""
    return connection.execute("PRAGMA user_version").fetchone()[0]


def check_version(connection: sqlite3.Connection, path: str, newest: int = len(MIGRATIONS)) -> None:
    """Refuse a file that a newer TrainVitals wrote.

    Raises:
        NewerSchemaError: if the file's version is above `newest`.
    """
    version = version_of(connection)
    if version > newest:
        raise NewerSchemaError(
            f"expected a run file of schema version {newest} or older, got version {version} "
            f"in {path}; upgrade TrainVitals to read it (the file was left as it is)"
        )


def migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the file to the newest version, one transaction a step, and return that version.

    A step that fails, or a process that dies in it, leaves the file at the version before.
    The connection must be in autocommit mode (`isolation_level=None`).

    Raises:
        NewerSchemaError: if the file is newer than these migrations.
    """
    check_version(connection, path, len(migrations))
    for version in range(version_of(connection), len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrations[version](connection)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return len(migrations)
