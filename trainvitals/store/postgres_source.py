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
MAX_ONE_BY_ONE = 8  # a series with its error, convergence and cost are four
_LAST_ROWS = (
    "SELECT series.id, last.*, number FROM generate_series(0, %s) AS levels (number), trainvitals.series, LATERAL ("
    "SELECT first_seq, last_seq, body, summary FROM trainvitals.chunks WHERE chunks.run = series.run "
    "AND chunks.series = series.id AND level = number ORDER BY first_seq DESC LIMIT 1) AS last WHERE series.run = %s"
)
_LAST_VECTORS = (
    "SELECT series.id, last.* FROM trainvitals.series, LATERAL ("
    "SELECT seq, step, time, text, body FROM trainvitals.vectors LEFT JOIN trainvitals.texts "
    "ON texts.run = vectors.run AND texts.id = vectors.keys WHERE vectors.run = series.run "
    "AND vectors.series = series.id ORDER BY seq DESC, vectors.id DESC LIMIT 1) AS last WHERE series.run = %s"
)
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
        self._ends = _Ends(connection, run)

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
        return self._ends.rows(series)

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
        found = {id: self._ends.bodies[id] for id in _ints(ids) if id in self._ends.bodies}
        rest = [id for id in _ints(ids) if id not in found]
        query = "SELECT id, body FROM trainvitals.bodies WHERE run = %s AND id = ANY(%s)"
        return found | dict(self._all(query, rest)) if rest else found

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
        return self._ends.vector(series)

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


class _Ends:
    """What came last of every series. A list of last readings asks for all of them, one by one.

    The first few are answered one by one too; then all that are left are fetched in one query, with the points of
    their last chunks: a hundred metrics are three answers of the server in place of a thousand.
    """

    def __init__(self, connection: Connection[Any], run: int) -> None:
        self._connection = connection
        self._run = run
        self._asked: set[int] = set()
        self._asked_for_vectors: set[int] = set()
        self._rows: dict[int, list[ChunkRow]] | None = None
        self._vectors: dict[int, VectorRow] | None = None
        self.bodies: dict[int, bytes] = {}

    def rows(self, series: int) -> list[ChunkRow]:
        """Return the last row of every level of a series, from level 0 up."""
        self._asked.add(series)
        if self._rows is None and len(self._asked) > MAX_ONE_BY_ONE:
            self._fetch_rows()
        if self._rows is not None:
            return self._rows.get(series, [])
        found = self._connection.execute(f"{_LAST_ROWS} AND series.id = %s ORDER BY number".encode(),
                                         (MAX_LEVEL, self._run, series), binary=True)  # fmt: skip
        return [ChunkRow(*row[1:5]) for row in found]

    def _fetch_rows(self) -> None:
        self._rows = {}
        query = (
            f"SELECT ends.*, bodies.body FROM ({_LAST_ROWS}) AS ends LEFT JOIN trainvitals.bodies "
            "ON bodies.run = %s AND bodies.id = ends.body ORDER BY ends.id, ends.number"
        )
        for series, *row, _, body in self._connection.execute(
            query.encode(), (MAX_LEVEL, self._run, self._run), binary=True
        ):
            self._rows.setdefault(series, []).append(ChunkRow(*row))
            if body is not None:
                self.bodies[row[2]] = body

    def vector(self, series: int) -> list[VectorRow]:
        """Return the arrays of a series that came last, if any."""
        self._asked_for_vectors.add(series)
        if self._vectors is None and len(self._asked_for_vectors) > MAX_ONE_BY_ONE:
            rows = self._connection.execute(_LAST_VECTORS.encode(), (self._run,), binary=True)
            self._vectors = {id: VectorRow(*row) for id, *row in rows}
        if self._vectors is not None:
            return [self._vectors[series]] if series in self._vectors else []
        query = f"{_LAST_VECTORS} AND series.id = %s"
        rows = self._connection.execute(query.encode(), (self._run, series), binary=True)
        return [VectorRow(*row[1:]) for row in rows]


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
