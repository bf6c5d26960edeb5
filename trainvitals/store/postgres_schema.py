"""The tables of a PostgreSQL store: those of a run file, with the run in every key.

`(run, table, key)` names a row wherever it is copied, so rows that are shipped twice are the same rows.
A migration is one transaction under an advisory lock: one that is interrupted leaves the version before,
and two programs that start at once migrate one after the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, Error, errors

from trainvitals.store.errors import NewerSchemaError, StoreError

SCHEMA = "trainvitals"
WRITER, READER = "trainvitals_writer", "trainvitals_reader"  # group roles: grant them to those who log in
MIGRATION_LOCK = 0x5472567400000001  # "TrVt" and a one: of advisory locks of this database


@dataclass(frozen=True)
class Table:
    """One table of a run file that is copied row by row."""

    name: str
    columns: tuple[tuple[str, str], ...]  # name and PostgreSQL type, as in the run file
    key: tuple[str, ...]  # without the run

    @property
    def names(self) -> tuple[str, ...]:
        """The column names."""
        return tuple(name for name, _ in self.columns)

    def ddl(self) -> str:
        """Return the statement that makes the table."""
        nullable = {"body"} if self.name == "chunks" else {"keys"}
        columns = ", ".join(f"{n} {t}{'' if n in nullable else ' NOT NULL'}" for n, t in self.columns)
        return (
            f"CREATE TABLE {SCHEMA}.{self.name} (run bigint NOT NULL REFERENCES {SCHEMA}.runs ON DELETE CASCADE, "
            f"{columns}, PRIMARY KEY (run, {', '.join(self.key)}))"
        )


_ID, _INT, _TEXT, _BYTES, _FLOAT = "bigint", "bigint", "text", "bytea", "double precision"
HEADER = Table("header", (("key", _TEXT), ("value", _TEXT)), ("key",))
SERIES = Table("series", (("id", _ID), ("name", _TEXT), ("field", _INT)), ("id",))
TEXTS = Table("texts", (("id", _ID), ("text", _TEXT)), ("id",))
LAYOUTS = Table("layouts", (("id", _ID), ("series", _BYTES)), ("id",))
HOT = Table("hot", (("id", _ID), ("layout", _INT), ("num_frames", _INT), ("body", _BYTES)), ("id",))
CHUNKS = Table(
    "chunks",
    (("series", _ID), ("level", _INT), ("first_seq", _INT), ("last_seq", _INT), ("min_step", _INT),
     ("max_step", _INT), ("body", _INT), ("summary", _BYTES)),
    ("series", "level", "first_seq"),
)  # fmt: skip
BODIES = Table("bodies", (("id", _ID), ("body", _BYTES)), ("id",))
VECTORS = Table(
    "vectors",
    (("id", _ID), ("series", _INT), ("seq", _INT), ("step", _INT), ("time", _FLOAT), ("keys", _INT), ("body", _BYTES)),
    ("id",),
)
DESCRIPTIONS = Table("descriptions", (("name", _TEXT), ("json", _TEXT)), ("name",))
EVENTS = Table(
    "events", (("id", _ID), ("step", _INT), ("time", _FLOAT), ("kind", _TEXT), ("message", _TEXT)), ("id",)
)
TABLES = (HEADER, SERIES, TEXTS, LAYOUTS, HOT, CHUNKS, BODIES, VECTORS, DESCRIPTIONS, EVENTS)

_RUNS = f"""
CREATE TABLE {SCHEMA}.runs (
    run bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    name text NOT NULL,
    started double precision NOT NULL,        -- seconds since the epoch, by the trainer's clock
    status text NOT NULL,
    message text NOT NULL,
    heartbeat_age double precision NOT NULL,  -- seconds, when it was received: the trainer's clock alone is asked
    received timestamptz NOT NULL,            -- by this server's clock
    last_step bigint,
    num_records bigint NOT NULL,
    num_points bigint NOT NULL,
    num_dropped bigint NOT NULL
)"""
_EDITS = f"""
CREATE TABLE {SCHEMA}.edits (  -- header rows changed here: they stand above those that the trainer ships
    run bigint NOT NULL REFERENCES {SCHEMA}.runs ON DELETE CASCADE, key text NOT NULL, value text NOT NULL,
    PRIMARY KEY (run, key)
)"""


# The header as a reader has it: a row that was changed here stands above the one that the trainer shipped.
EDITS_OVER_HEADER = (
    "SELECT key, value FROM (SELECT run, key, value FROM trainvitals.edits UNION ALL "
    "SELECT run, key, value FROM trainvitals.header WHERE NOT EXISTS (SELECT FROM trainvitals.edits "
    "WHERE edits.run = header.run AND edits.key = header.key)) AS words"
)


def _create(connection: Connection[Any]) -> None:
    connection.execute(_RUNS)
    for table in TABLES:
        connection.execute(table.ddl().encode())
        if any(kind == _BYTES for _, kind in table.columns):
            for name in (name for name, kind in table.columns if kind == _BYTES):
                # Compressed already: the server need not try again.
                connection.execute(f"ALTER TABLE {SCHEMA}.{table.name} ALTER {name} SET STORAGE EXTERNAL".encode())
    connection.execute(f"CREATE INDEX chunks_by_seq ON {SCHEMA}.chunks (run, last_seq)".encode())
    connection.execute(f"CREATE INDEX vectors_by_series ON {SCHEMA}.vectors (run, series, seq)".encode())
    connection.execute(_EDITS.encode())


MIGRATIONS = (_create,)  # the i-th one leads from version i to i + 1


def version_of(connection: Connection[Any]) -> int:
    """Return the schema version of the database; 0 where nothing was made yet."""
    row = connection.execute("SELECT to_regclass('trainvitals.version') IS NOT NULL").fetchone()
    if not row or not row[0]:
        return 0
    row = connection.execute("SELECT max(number) FROM trainvitals.version").fetchone()
    return int(row[0] or 0) if row else 0


def check_version(connection: Connection[Any], shown_address: str) -> None:
    """Refuse a database that this TrainVitals cannot use as it is.

    Raises:
        NewerSchemaError: if a newer TrainVitals made its tables.
        StoreError: if its tables are older or were never made.
    """
    version, newest = version_of(connection), len(MIGRATIONS)
    if version > newest:
        raise NewerSchemaError(
            f"expected a store of schema version {newest} or older, got version {version} in {shown_address}; "
            "upgrade TrainVitals to use it (the database was left as it is)"
        )
    if version < newest:
        raise StoreError(
            f"expected a store of schema version {newest}, got {f'version {version}' if version else 'no tables'} in "
            f"{shown_address}; let its owner run: trainvitals migrate --to ADDRESS"
        )


def migrate(connection: Connection[Any], shown_address: str, migrations: Sequence[Any] = MIGRATIONS) -> int:
    """Bring the database to the newest version, one transaction a step, and return that version.

    Raises:
        NewerSchemaError: if the database is newer than these migrations.
        StoreError: if this role may not make tables.
    """
    try:
        with _alone(connection):
            for number in range(1, len(migrations) + 1):
                with connection.transaction():
                    if version_of(connection) >= number:
                        continue
                    _begin(connection)
                    migrations[number - 1](connection)
                    connection.execute("INSERT INTO trainvitals.version VALUES (%s)", (number,))
    except errors.InsufficientPrivilege as error:
        raise StoreError(
            f"expected a role that may make tables, got {error} in {shown_address}; "
            "let the database's owner run: trainvitals migrate --to ADDRESS"
        ) from error
    version = version_of(connection)
    if version > len(migrations):
        check_version(connection, shown_address)
    return version


@contextlib.contextmanager
def _alone(connection: Connection[Any]) -> Iterator[None]:
    """Hold the lock of migrations.

    It is the session's and taken before the transaction: a transaction that waits for it would look names up
    in what its server process remembers from before, and make the tables again that another has made meanwhile.
    """
    connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
    try:
        yield
    finally:
        with contextlib.suppress(Error):  # the connection is gone, and the lock with it
            connection.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))


def _begin(connection: Connection[Any]) -> None:
    """Make the schema if it is not there. Asked first: IF NOT EXISTS wants the right to make it all the same."""
    row = connection.execute("SELECT to_regnamespace('trainvitals') IS NULL").fetchone()
    if row and row[0]:
        connection.execute("CREATE SCHEMA trainvitals")
    connection.execute("CREATE TABLE IF NOT EXISTS trainvitals.version (number integer PRIMARY KEY)")


def grant_roles(connection: Connection[Any]) -> bool:
    """Make the writer's and the reader's group role and give them their rights; False where this role may not.

    A writer may add and change rows, and delete those that it replaces; it may not change tables. A reader
    may only read.
    """
    try:
        with _alone(connection), connection.transaction():
            for role in (WRITER, READER):
                row = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
                if row is None:
                    connection.execute(f"CREATE ROLE {role} NOLOGIN".encode())
                connection.execute(f"GRANT USAGE ON SCHEMA trainvitals TO {role}".encode())
                connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA trainvitals TO {role}".encode())
            connection.execute(
                f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA trainvitals TO {WRITER}".encode()
            )
            connection.execute(f"REVOKE INSERT, UPDATE, DELETE ON trainvitals.version FROM {WRITER}".encode())
    except errors.InsufficientPrivilege:
        return False
    return True
