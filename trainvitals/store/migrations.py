"""Forward migrations of a run file, each inside one transaction; files of a newer version are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from trainvitals.store.errors import NewerSchemaError
from trainvitals.store.schema_sql import APPLICATION_ID, VERSION_1

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


MIGRATIONS: tuple[Migration, ...] = (_create,)  # the i-th one leads from version i to i + 1


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
