"""A PostgreSQL store as a reader sees it: the source of a run, and the list of runs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from psycopg import Connection, sql

from trainvitals.schema import Event, RunSummary
from trainvitals.store.codec import DamagedError, Frames, decode_frames
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_address import run_path, shown
from trainvitals.store.postgres_connection import reading
from trainvitals.store.postgres_schema import EDITS_OVER_HEADER
from trainvitals.store.source import ChunkRow, Header, OpenSource, Source, VectorRow, header_of
from trainvitals.store.state import State

MAX_LEVEL = 20  # of summaries: 8²⁰ chunks are more than step numbers reach
# The age of a heartbeat is told by the trainer's clock until it is received and by the server's from then on: the
# clocks of three machines need not agree for a live run to be called live.
_AGE = "heartbeat_age + extract(epoch FROM clock_timestamp() - received)::double precision"
_STATE = f"status, message, {_AGE}, last_step, num_records, num_points, num_dropped"
_WORDS = EDITS_OVER_HEADER.replace("SELECT key", "SELECT run, key", 1)


def opening(address: str, run_id: str) -> OpenSource:
    """Return what opens a run of a database for one read transaction after the other."""

    @contextmanager
    def open_database() -> Iterator[Source]:
        with reading(address) as connection:
            row = connection.execute("SELECT run FROM trainvitals.runs WHERE id = %s", (run_id,)).fetchone()
            if row is None:
                raise StoreError(
                    f"expected a run of {shown(address)}, got {run_id!r} that it does not have; "
                    "`trainvitals runs --store ADDRESS` lists those there are"
                )
            yield PostgresSource(connection, row[0])

    return open_database


class PostgresSource:
    """One run of a database, in the caller's transaction."""

    def __init__(self, connection: Connection[Any], run: int) -> None:
        self._connection = connection
        self._run = run
        self.damage: list[str] = []

    def _all(self, query: str, *values: Any) -> list[Any]:
        """Return the rows of a query about this run; `query` is ours, what is asked for goes in as values."""
        return self._connection.execute(query.encode(), (self._run, *values), binary=True).fetchall()

    def header(self) -> Header:
        """Return what is known of the run as a whole."""
        words = {key: json.loads(value) for key, value in self._all(f"{EDITS_OVER_HEADER} WHERE run = %s")}
        return header_of(words, read_state(self._connection, self._run))

    def series(self) -> list[tuple[int, str, int]]:
        """Return (id, name, field) of every series."""
        return self._all("SELECT id, name, field FROM trainvitals.series WHERE run = %s ORDER BY id")

    def hot(self) -> list[tuple[list[int], Frames]]:
        """Return (series of the columns, frames) of all that is in no chunk yet, in order of arrival."""
        found = []
        for layout, body in self._all(
            "SELECT layouts.series, hot.body FROM trainvitals.hot JOIN trainvitals.layouts "
            "ON layouts.run = hot.run AND layouts.id = hot.layout WHERE hot.run = %s ORDER BY hot.id"
        ):
            try:
                found.append((np.frombuffer(layout, "<i4").tolist(), decode_frames(body)))
            except DamagedError as error:
                self.damage.append(f"some of the last records: {error}")
        return found

    def last_rows(self, series: int) -> list[ChunkRow]:
        """Return the last row of every level of a series, from level 0 up; empty without any chunk."""
        rows = self._connection.execute(
            "SELECT last.* FROM generate_series(0, %s) AS levels (number), LATERAL ("
            "SELECT first_seq, last_seq, body, summary FROM trainvitals.chunks WHERE run = %s AND series = %s "
            "AND level = number ORDER BY first_seq DESC LIMIT 1) AS last ORDER BY number",
            (MAX_LEVEL, self._run, series), binary=True,
        )  # fmt: skip
        return [ChunkRow(*row) for row in rows]

    def chunk_rows(self, series: int, level: int, seqs: tuple[int, int], steps: tuple[int, int]) -> list[ChunkRow]:
        """Return the rows of a level whose first_seq lies in `seqs` and that overlap `steps`, both ends included."""
        rows = self._all(
            "SELECT first_seq, last_seq, body, summary FROM trainvitals.chunks WHERE run = %s AND series = %s "
            "AND level = %s AND first_seq BETWEEN %s AND %s AND max_step >= %s AND min_step <= %s ORDER BY first_seq",
            series, level, *map(int, seqs), *map(int, steps),
        )  # fmt: skip
        return [ChunkRow(*row) for row in rows]

    def bodies(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the encoded points of chunks."""
        rows = self._all("SELECT id, body FROM trainvitals.bodies WHERE run = %s AND id = ANY(%s)", _ints(ids))
        return dict(rows)

    def vector_steps(self, series: int, steps: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (seq, step) of the arrays with a step in `steps`, both ends included, in order of arrival."""
        return self._all(
            "SELECT seq, step FROM trainvitals.vectors WHERE run = %s AND series = %s AND step BETWEEN %s AND %s "
            "ORDER BY seq", series, *map(int, steps),
        )  # fmt: skip

    def vectors(self, series: int, seqs: Sequence[int]) -> list[VectorRow]:
        """Return the arrays of these records, in order of arrival."""
        rows = self._all(
            "SELECT seq, step, time, text, body FROM trainvitals.vectors LEFT JOIN trainvitals.texts "
            "ON texts.run = vectors.run AND texts.id = vectors.keys "
            "WHERE vectors.run = %s AND vectors.series = %s AND seq = ANY(%s) ORDER BY seq", series, _ints(seqs),
        )  # fmt: skip
        return [VectorRow(*row) for row in rows]

    def last_vector(self, series: int) -> list[VectorRow]:
        """Return the arrays that came last, if any."""
        query = "SELECT max(seq) FROM trainvitals.vectors WHERE run = %s AND series = %s"
        (seq,) = self._all(query, series)[0]
        return [] if seq is None else self.vectors(series, [seq])[-1:]

    def texts(self, ids: Sequence[int]) -> dict[int, str]:
        """Return texts by id."""
        return dict(self._all("SELECT id, text FROM trainvitals.texts WHERE run = %s AND id = ANY(%s)", _ints(ids)))

    def descriptions(self) -> list[tuple[str, str]]:
        """Return (name, JSON) of every description, by name."""
        rows = self._all("SELECT name, json FROM trainvitals.descriptions WHERE run = %s")
        return sorted((name, text) for name, text in rows)

    def events(self) -> list[Event]:
        """Return the events in order of arrival."""
        query = "SELECT step, time, kind, message FROM trainvitals.events WHERE run = %s ORDER BY id"
        return [Event(*row) for row in self._all(query)]


def _ints(ids: Sequence[int]) -> list[int]:
    return [int(id) for id in ids]


def read_state(connection: Connection[Any], run: int) -> State:
    """Return how far a run is, by the clock of this machine."""
    row = connection.execute(f"SELECT {_STATE} FROM trainvitals.runs WHERE run = %s".encode(), (run,)).fetchone()
    assert row is not None
    return _state(row)


def _state(row: Sequence[Any]) -> State:
    status, message, age, *rest = row
    return State(status, message, time.time() - age, *rest)


def list_database(address: str) -> list[RunSummary]:
    """Return a summary of every run of a database, newest first; what it lists it can open.

    Raises:
        StoreError: if the database cannot be read.
    """
    with reading(address) as connection:
        words: dict[int, dict[str, Any]] = {}
        query = f"{_WORDS} WHERE key IN ('name', 'process', 'tags')"
        for run, key, value in connection.execute(query.encode()):
            words.setdefault(run, {})[key] = json.loads(value)
        runs = connection.execute(
            f"SELECT run, id, name, started, {_STATE} FROM trainvitals.runs ORDER BY started DESC, id DESC".encode()
        ).fetchall()
    return [_summary(address, words.get(run, {}), rest) for run, *rest in runs]


def _summary(address: str, words: dict[str, Any], row: Sequence[Any]) -> RunSummary:
    id, name, started, *state = row
    known = {"id": id, "name": name, "started": started, "meta": {}, "process": {}, **words}
    return header_of(known, _state(state)).summary(run_path(address, id))


def edit_header(connection: Connection[Any], run_id: str, changes: dict[str, Any]) -> None:
    """Change header rows of a run in the database itself; what the trainer ships later does not undo it.

    Raises:
        StoreError: if there is no such run.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT run FROM trainvitals.runs WHERE id = %s FOR UPDATE", (run_id,)
        ).fetchone()  # fmt: skip
        if row is None:
            raise StoreError(f"expected a run of the database, got {run_id!r} that it does not have; look at the list")
        for key, value in changes.items():
            connection.execute(
                sql.SQL(
                    "INSERT INTO trainvitals.edits (run, key, value) VALUES (%s, %s, %s) "
                    "ON CONFLICT (run, key) DO UPDATE SET value = excluded.value"
                ),
                (row[0], key, json.dumps(value)),
            )


def all_headers(address: str) -> dict[str, Header]:
    """Return the header of every run by id, in one transaction: for a table of runs."""
    with reading(address) as connection:
        words: dict[int, dict[str, Any]] = {}
        for run, key, value in connection.execute(_WORDS.encode()):
            with contextlib.suppress(ValueError):
                words.setdefault(run, {})[key] = json.loads(value)
        states = connection.execute(f"SELECT run, id, {_STATE} FROM trainvitals.runs".encode()).fetchall()
    return {id: header_of(words[run], _state(rest)) for run, id, *rest in states if "meta" in words.get(run, {})}
