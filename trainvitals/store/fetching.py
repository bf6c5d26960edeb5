"""From a database back to a run file: every row under the same key."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path

from psycopg import Connection

from trainvitals.store.errors import StoreError
from trainvitals.store.migrations import migrate
from trainvitals.store.postgres_address import shown
from trainvitals.store.postgres_connection import reading
from trainvitals.store.postgres_schema import EDITS_OVER_HEADER, HEADER, TABLES, Table
from trainvitals.store.postgres_source import read_state
from trainvitals.store.rows import Rows
from trainvitals.store.state import write_state

BATCH_ROWS = 512


def fetch(address: str, run_id: str, to: Path) -> None:
    """Write a run of a database into a new run file.

    Raises:
        StoreError: if there is no such run, or the database cannot be read.
    """
    os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with reading(address) as db, contextlib.closing(sqlite3.connect(to, isolation_level=None)) as file:
        row = db.execute("SELECT run FROM trainvitals.runs WHERE id = %s", (run_id,)).fetchone()
        if row is None:
            raise StoreError(
                f"expected a run of {shown(address)}, got {run_id!r} that it does not have; look at the list"
            )
        migrate(file, str(to))
        rows = Rows(file)
        rows.begin()
        for table in TABLES:
            _fetch_table(db, row[0], table, rows)
        write_state(rows, read_state(db, row[0]))
        rows.commit()


def _fetch_table(db: Connection, run: int, table: Table, rows: Rows) -> None:
    query = EDITS_OVER_HEADER if table is HEADER else f"SELECT {', '.join(table.names)} FROM trainvitals.{table.name}"
    with db.cursor(name=f"fetch_{secrets.token_hex(4)}", binary=True) as cursor:
        cursor.execute(f"{query} WHERE run = %(run)s".encode(), {"run": run})
        while part := cursor.fetchmany(BATCH_ROWS):
            rows.put(table.name, *part)
