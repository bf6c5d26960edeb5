"""From a run file to PostgreSQL: what the database does not have yet, in short transactions.

Training writes the run file and nothing else. A shipper reads that file beside it and keeps no books of
its own: when it connects it asks the database how far it is. So it may be killed, cut off or started
twice; rows have the same keys everywhere, and shipping one again changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from trainvitals.schema import Status
from trainvitals.store import database
from trainvitals.store.errors import StoreError
from trainvitals.store.liveness import is_gone
from trainvitals.store.postgres_address import shown
from trainvitals.store.postgres_connection import connect, failure
from trainvitals.store.postgres_schema import (
    BODIES,
    CHUNKS,
    DESCRIPTIONS,
    EVENTS,
    HEADER,
    HOT,
    LAYOUTS,
    MIGRATIONS,
    SCHEMA,
    SERIES,
    TEXTS,
    VECTORS,
    Table,
    check_version,
    migrate,
    version_of,
)

BATCH_BYTES = 4 * 2**20  # of a transaction: half a second of a slow line
BATCH_ROWS = 4096
IDLE_HEARTBEAT_SECONDS = 5.0  # between updates of a run that has nothing new; it counts as stalled after 30 s
APPENDED = (SERIES, TEXTS, LAYOUTS, VECTORS, EVENTS)  # rows with rising ids that never change

Row = tuple[Any, ...]


@dataclass
class Shipped:
    """How far the database is, as it said when we connected and we have sent since."""

    run: int
    last_ids: dict[str, int]
    chunks: dict[tuple[int, int], tuple[int, int, int | None]]  # (series, level) -> first_seq, last_seq, body
    hot: dict[int, bytes]  # id -> the checksum that the block begins with
    texts: dict[str, dict[str, str]] = field(default_factory=lambda: {"header": {}, "descriptions": {}})
    progress: Row = ()  # status, last step, numbers of records, points and drops
    told: float = -IDLE_HEARTBEAT_SECONDS  # when the run's row was last sent, monotonic


@dataclass(frozen=True)
class Round:
    """What one look at the file led to."""

    num_rows: int  # that were new or changed
    is_over: bool  # the run has ended, or its process is gone: nothing more will come


class Shipper:
    """Ships one run file to one database. Not to be shared between threads.

    Args:
        path: of the run file.
        address: of the database.
    """

    def __init__(self, path: str | Path, address: str) -> None:
        self.path = Path(path)
        self._address = address
        self._connection: Connection[Any] | None = None
        self._shipped: Shipped | None = None

    def ship(self) -> Round:
        """Send what the database does not have yet.

        Raises:
            AwayError: if the database cannot be reached now.
            StoreError: if it refuses, or the run file cannot be read.
        """
        try:
            with database.reading(self.path) as file:
                return self._ship(file)
        except psycopg.Error as error:
            self.close()
            raise failure(self._address, error) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the connection go; what was not committed is sent again next time."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._shipped = None

    def __enter__(self) -> Shipper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ship(self, file: sqlite3.Connection) -> Round:
        header = dict(file.execute("SELECT key, value FROM header").fetchall())
        state = _State.read(file, json.loads(header.get("process", "{}")))
        db = self._connection = self._connection or ready_connection(self._address)
        if self._shipped is None:
            with db.transaction():
                self._shipped = _begun(db, header, state)
        shipped = self._shipped
        is_news = state.progress != shipped.progress
        num_rows = 0
        for batch in _Batches(file, shipped).all(is_news):
            with db.transaction():
                num_rows += _send(db, shipped.run, batch)
        if is_news or num_rows or time.monotonic() - shipped.told >= IDLE_HEARTBEAT_SECONDS:
            with db.transaction():
                num_rows += self._send_ends(db, file, shipped, state)
            shipped.progress, shipped.told = state.progress, time.monotonic()
        return Round(num_rows, state.is_over)

    def _send_ends(self, db: Connection[Any], file: sqlite3.Connection, shipped: Shipped, state: _State) -> int:
        """Send what changes in place: hot blocks as a whole, changed texts, and the state last."""
        hot = {i: bytes(crc) for i, crc in file.execute("SELECT id, substr(body, 1, 4) FROM hot")}
        gone = [i for i, crc in shipped.hot.items() if hot.get(i) != crc]
        if gone:
            db.execute(f"DELETE FROM {SCHEMA}.hot WHERE run = %s AND id = ANY(%s)".encode(), (shipped.run, gone))
        fresh = [i for i, crc in hot.items() if shipped.hot.get(i) != crc]
        rows = [row for i in fresh for row in file.execute(_select(HOT, "id = ?"), (i,))]
        num_rows = len(gone) + put(db, shipped.run, HOT, rows)
        sent = {}
        for table in (HEADER, DESCRIPTIONS):
            now = dict(file.execute(_select(table)).fetchall())
            changed = [row for row in now.items() if shipped.texts[table.name].get(row[0]) != row[1]]
            num_rows += put(db, shipped.run, table, changed)
            sent[table.name] = now
        state.send(db, shipped.run)
        shipped.hot, shipped.texts = hot, sent
        return num_rows


@dataclass(frozen=True)
class _State:
    status: str
    message: str
    heartbeat: float
    progress: Row
    is_over: bool

    @classmethod
    def read(cls, file: sqlite3.Connection, process: Mapping[str, Any]) -> _State:
        status, message, heartbeat, *numbers = file.execute(
            "SELECT status, message, heartbeat, last_step, num_records, num_points, num_dropped FROM state"
        ).fetchone()
        if status == Status.LIVE and is_gone(process):  # only this machine can tell
            status = str(Status.CRASHED)
        return cls(status, message, heartbeat, (status, message, *numbers), status != Status.LIVE)

    def send(self, db: Connection[Any], run: int) -> None:
        _, _, last_step, num_records, num_points, num_dropped = self.progress
        db.execute(
            "UPDATE trainvitals.runs SET status = %s, message = %s, heartbeat_age = %s, received = clock_timestamp(), "
            "last_step = %s, num_records = %s, num_points = %s, num_dropped = %s WHERE run = %s",
            (self.status, printable(self.message), self.age, last_step, num_records, num_points, num_dropped, run),
        )

    @property
    def age(self) -> float:
        """Seconds since the trainer's last sign of life, by its own machine's clock."""
        return max(0.0, time.time() - self.heartbeat)


@dataclass
class _Batch:
    """Rows for one transaction."""

    rows: list[tuple[Table, list[Row]]]
    replaced_bodies: list[int] = field(default_factory=list)


class _Batches:
    """What the file has and the database has not, in batches; marks move when the next batch is asked for."""

    def __init__(self, file: sqlite3.Connection, shipped: Shipped) -> None:
        self._file = file
        self._shipped = shipped

    def all(self, is_news: bool) -> Iterator[_Batch]:
        for table in APPENDED:
            yield from self._appended(table)
        if is_news:
            yield from self._chunks()

    def _appended(self, table: Table) -> Iterator[_Batch]:
        rows = self._file.execute(
            f"{_select(table, 'id > ?')} ORDER BY id", (self._shipped.last_ids.get(table.name, 0),)
        )
        for part in _parts(rows):
            yield _Batch([(table, part)])
            self._shipped.last_ids[table.name] = part[-1][0]

    def _chunks(self) -> Iterator[_Batch]:
        for part in _parts(self._new_chunks(), by=lambda row: len(row[8] or b"") + len(row[7])):
            known = self._shipped.chunks
            replaced = [old[2] for row in part if (old := known.get(row[:2])) and old[0] == row[2]]
            bodies = [(row[6], row[8]) for row in part if row[6] is not None]
            new = {id for id, _ in bodies}
            yield _Batch(
                [(BODIES, bodies), (CHUNKS, [row[:8] for row in part])],
                [id for id in replaced if id is not None and id not in new],
            )
            for row in part:
                known[row[:2]] = (row[2], row[3], row[6])

    def _new_chunks(self) -> Iterator[Row]:
        """Return chunk rows, each with its body: of every series and level those at and after the last one sent."""
        for (series,) in self._file.execute("SELECT id FROM series ORDER BY id").fetchall():
            level = 0
            while True:
                first, last, _ = self._shipped.chunks.get((series, level), (-1, -1, None))
                rows = self._file.execute(
                    "SELECT series, level, first_seq, last_seq, min_step, max_step, chunks.body, summary, bodies.body "
                    "FROM chunks LEFT JOIN bodies ON bodies.id = chunks.body "
                    "WHERE series = ? AND level = ? AND first_seq >= ? ORDER BY first_seq", (series, level, first),
                )  # fmt: skip
                is_level = False
                for row in rows:
                    is_level = True
                    if row[2:4] != (first, last):
                        yield row
                if not is_level:
                    break
                level += 1


def _parts(rows: Iterable[Row], by: Any = None) -> Iterator[list[Row]]:
    """Cut rows into parts of at most BATCH_ROWS rows and about BATCH_BYTES."""
    part: list[Row] = []
    num_bytes = 0
    for row in rows:
        part.append(row)
        num_bytes += by(row) if by else sum(len(c) for c in row if isinstance(c, (bytes, str)))
        if len(part) >= BATCH_ROWS or num_bytes >= BATCH_BYTES:
            yield part
            part, num_bytes = [], 0
    if part:
        yield part


def _send(db: Connection[Any], run: int, batch: _Batch) -> int:
    if batch.replaced_bodies:
        db.execute("DELETE FROM trainvitals.bodies WHERE run = %s AND id = ANY(%s)", (run, batch.replaced_bodies))
    return sum(put(db, run, table, rows) for table, rows in batch.rows)


def ready_connection(address: str) -> Connection[Any]:
    """Return a connection to a database with our tables; they are made where there are none and we may.

    Raises:
        AwayError: if the database cannot be reached now.
        StoreError: if it refuses.
    """
    db = connect(address)
    try:
        if version_of(db) < len(MIGRATIONS):
            migrate(db, shown(address))
        check_version(db, shown(address))
    except psycopg.Error as error:
        db.close()
        raise failure(address, error) from None
    except BaseException:
        db.close()
        raise
    return db


def _begun(db: Connection[Any], header: Mapping[str, str], state: _State) -> Shipped:
    """Make the run's row and its header if they are not there, and ask how far the database is."""
    id, name, started = (json.loads(header[key]) for key in ("id", "name", "started"))
    row = db.execute(
        "INSERT INTO trainvitals.runs (id, name, started, status, message, heartbeat_age, received, num_records, "
        "num_points, num_dropped) VALUES (%s, %s, %s, 'live', '', %s, clock_timestamp(), 0, 0, 0) "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING run, started",
        (printable(id), printable(name), started, state.age),
    ).fetchone()
    assert row is not None
    run = row[0]
    if row[1] != started:
        raise StoreError(
            f"expected a run that the database does not know yet, or the same one, got {id!r} that began at another "
            "time in ship; a run's id must not be given to two runs: rename the file of one"
        )
    put(db, run, HEADER, list(header.items()))
    last_ids = {}
    for table in APPENDED:
        found = db.execute(f"SELECT max(id) FROM {SCHEMA}.{table.name} WHERE run = %s".encode(), (run,)).fetchone()
        last_ids[table.name] = int(found[0] or 0) if found else 0
    chunks = {
        (series, level): (first, last, body)
        for series, level, first, last, body in db.execute(
            "SELECT DISTINCT ON (series, level) series, level, first_seq, last_seq, body FROM trainvitals.chunks "
            "WHERE run = %s ORDER BY series, level, first_seq DESC", (run,),
        )
    }  # fmt: skip
    hot = dict(db.execute("SELECT id, substr(body, 1, 4) FROM trainvitals.hot WHERE run = %s", (run,)).fetchall())
    return Shipped(run, last_ids, chunks, hot)


def _select(table: Table, where: str = "") -> str:
    return f"SELECT {', '.join(table.names)} FROM {table.name}" + (f" WHERE {where}" if where else "")


def put(db: Connection[Any], run: int, table: Table, rows: Sequence[Row]) -> int:
    """Insert rows, or replace those of the same key; return how many: one that is there already is not touched."""
    if not rows:
        return 0
    columns = [list(column) for column in zip(*rows, strict=True)]
    for at, (_, kind) in enumerate(table.columns):
        if kind == "text":
            columns[at] = [printable(text) for text in columns[at]]
    return db.execute(_put_statement(table), (run, *columns)).rowcount


def _put_statement(table: Table) -> bytes:
    names, key = table.names, ("run", *table.key)
    arrays = ", ".join(f"%b::{kind}[]" if kind == "bytea" else f"%s::{kind}[]" for _, kind in table.columns)
    rest = [name for name in names if name not in table.key]
    old = ", ".join(f"there.{name}" for name in rest)
    new = ", ".join(f"excluded.{name}" for name in rest)
    return (
        f"INSERT INTO {SCHEMA}.{table.name} AS there (run, {', '.join(names)}) "
        f"SELECT %s::bigint, * FROM unnest({arrays}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in rest)} "
        f"WHERE ROW({old}) IS DISTINCT FROM ROW({new})"
    ).encode()


def printable(text: str) -> str:
    r"""Return the text with zero characters as `\x00`: PostgreSQL has no room for them."""
    return text.replace("\0", "\\x00")


@dataclass
class Following:
    """How the shipping of a run that goes on is paced.

    Args:
        poll_seconds: between two looks at the file.
        longest_pause_seconds: between two tries while the database is away.
        patience_seconds: that the database may be away after the run is over.
    """

    poll_seconds: float = 0.25
    longest_pause_seconds: float = 10.0
    patience_seconds: float = 3600.0


def follow(
    path: str | Path, address: str, pace: Following | None = None, on_trouble: Callable[[str], None] = lambda _: None
) -> bool:
    """Ship a run until it is over and all of it is in the database; an outage is waited for.

    Args:
        path: of the run file.
        address: of the database.
        pace: how often to look and how long to try.
        on_trouble: told in words when the trouble is a new one.

    Returns:
        False if the database was away for too long after the end: the rest is still in the file.
    """
    pace = pace or Following()
    pause, trouble, last_success = pace.poll_seconds, "", time.monotonic()
    is_over = False
    with Shipper(path, address) as shipper:
        while True:
            try:
                outcome = shipper.ship()
                pause, trouble, last_success = pace.poll_seconds, "", time.monotonic()
                is_over = outcome.is_over
                if is_over and not outcome.num_rows:
                    return True
                if is_over:
                    continue  # once more, to see that nothing is left
            except StoreError as error:  # refused as well: rights may be given, a disk be emptied
                if str(error) != trouble:
                    on_trouble(str(error))
                trouble, pause = str(error), min(2 * pause, pace.longest_pause_seconds)
                is_over = is_over or _is_over(Path(path))
                if is_over and time.monotonic() - last_success > pace.patience_seconds:
                    return False
            time.sleep(pause)


def _is_over(path: Path) -> bool:
    """Tell whether a run has ended, without the database; a file that is gone has nothing more to give."""
    try:
        with database.reading(path) as file:
            header = dict(file.execute("SELECT key, value FROM header WHERE key = 'process'").fetchall())
            return _State.read(file, json.loads(header.get("process", "{}"))).is_over
    except StoreError:
        return not path.exists()
