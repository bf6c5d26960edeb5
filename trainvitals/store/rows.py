"""Rows of a run file: written with an id and a checksum, checked when they are read.

All that a writer changes in a file goes through `Rows`, so the same changes can be noted in a log
(`fragments.py`) and made again elsewhere. To make one twice is to make it once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from trainvitals.store.codec import row_checksum
from trainvitals.store.schema_sql import CHECKED_COLUMNS

COLUMNS = {  # without `crc`; the place of a table in this order is stored in logs: only add at the end
    "header": ("key", "value"),
    "state": ("id", "status", "message", "heartbeat", "last_step", "num_records", "num_points", "num_dropped", "lease"),
    "series": ("id", "name", "field"),
    "texts": ("id", "text"),
    "layouts": ("id", "series"),
    "hot": ("id", "layout", "num_frames", "body"),
    "chunks": ("series", "level", "first_seq", "last_seq", "min_step", "max_step", "body", "summary"),
    "bodies": ("id", "body"),
    "vectors": ("id", "series", "seq", "step", "time", "keys", "body"),
    "descriptions": ("name", "json"),
    "events": ("id", "step", "time", "kind", "message"),
}
KEYS = {"header": ("key",), "chunks": ("series", "level", "first_seq"), "descriptions": ("name",)}  # else ("id",)
PUT, DELETE, CLEAR = 0, 1, 2  # stored in logs

Row = tuple[Any, ...]
_CHECKED = {table: [COLUMNS[table].index(c) for c in checked] for table, checked in CHECKED_COLUMNS.items()}


def _put_statement(table: str) -> str:
    columns = (*COLUMNS[table], "crc") if table in CHECKED_COLUMNS else COLUMNS[table]
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _delete_statement(table: str) -> str:
    return f"DELETE FROM {table} WHERE " + " AND ".join(f"{key} = ?" for key in KEYS.get(table, ("id",)))


_PUT_STATEMENTS = {table: _put_statement(table) for table in COLUMNS}
_DELETE_STATEMENTS = {table: _delete_statement(table) for table in COLUMNS}


def checksum_of(table: str, row: Sequence[Any]) -> int:
    """Return the checksum of a row given in the order of `COLUMNS`."""
    return row_checksum(*(row[i] for i in _CHECKED[table]))


def is_intact(table: str, row: Sequence[Any], crc: Any) -> bool:
    """Whether a row that was read, in the order of `COLUMNS`, is the one that was written."""
    return crc == checksum_of(table, row)


class Log(Protocol):
    """Where changes are noted before they count: see `fragments.py`."""

    def append(self, changes: Sequence[tuple[int, str, list[Row]]]) -> None:
        """Note one transaction's changes for good, or raise `OSError`."""
        ...


class Rows:
    """The one way to change a run file.

    Args:
        connection: read-write, in autocommit mode.
        log: also notes every transaction, before it is committed.
    """

    def __init__(self, connection: sqlite3.Connection, log: Log | None = None) -> None:
        self.connection = connection
        self._log = log
        self._changes: list[tuple[int, str, list[Row]]] = []
        self._next_ids: dict[str, int] = {}

    def begin(self) -> None:
        """Begin a transaction; nobody else writes from here on."""
        self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction's changes last."""
        if self._log is not None:
            self._log.append(self._changes)
        self.connection.execute("COMMIT")
        self._changes = []

    def roll_back(self) -> None:
        """Undo the transaction; ids that it took are given again."""
        self._changes, self._next_ids = [], {}
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def next_id(self, table: str) -> int:
        """Return an id that no row of the table has."""
        if table not in self._next_ids:
            (highest,) = self.connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()
            self._next_ids[table] = highest + 1
        self._next_ids[table] += 1
        return self._next_ids[table] - 1

    def put(self, table: str, *rows: Row) -> None:
        """Insert rows, each in the order of `COLUMNS`, or replace those of the same key."""
        make_change(self.connection, PUT, table, rows)
        self._note(PUT, table, rows)

    def delete(self, table: str, *keys: Row) -> None:
        """Delete the rows of these keys."""
        make_change(self.connection, DELETE, table, keys)
        self._note(DELETE, table, keys)

    def clear(self, table: str) -> None:
        """Delete all rows of a table."""
        make_change(self.connection, CLEAR, table, ())
        self._note(CLEAR, table, ())

    def _note(self, kind: int, table: str, rows: Iterable[Row]) -> None:
        if self._log is not None:
            self._changes.append((kind, table, list(rows)))


def make_change(connection: sqlite3.Connection, kind: int, table: str, rows: Sequence[Row]) -> None:
    """Make one change; the statements are ours whatever a log says."""
    if kind == CLEAR:
        connection.execute(f"DELETE FROM {_known(table)}")
    elif kind == DELETE:
        connection.executemany(_DELETE_STATEMENTS[table], rows)
    elif table in CHECKED_COLUMNS:
        connection.executemany(_PUT_STATEMENTS[table], [(*row, checksum_of(table, row)) for row in rows])
    else:
        connection.executemany(_PUT_STATEMENTS[table], rows)


def _known(table: str) -> str:
    if table not in COLUMNS:
        raise KeyError(table)
    return table
