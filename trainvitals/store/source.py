"""What a reader asks of a place where runs are kept; SQLite files answer here, a database elsewhere.

A source is one read transaction: all its answers are of one moment. What is damaged is left out of
the answers and said in `damage`, so that the rest can be read.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from trainvitals.schema import Event, RunSummary, Status
from trainvitals.store.codec import Frames
from trainvitals.store.compaction import hot_frames
from trainvitals.store.database import present, reading
from trainvitals.store.fragments import damage_of_log
from trainvitals.store.liveness import status_of
from trainvitals.store.rows import COLUMNS, Row, is_intact
from trainvitals.store.state import State, read_state

MAX_LINES = 20  # of what SQLite finds wrong in a file


class ChunkRow(NamedTuple):
    """A row of the pyramid of summaries, its summary still encoded."""

    first_seq: int
    last_seq: int
    body: int | None  # id of the points; None above level 0
    summary: bytes


class VectorRow(NamedTuple):
    """The arrays of one reading, still encoded."""

    seq: int
    step: int
    time: float
    keys: str | None  # JSON list
    body: bytes


@dataclass(frozen=True)
class Header:
    """What the writer recorded about the run, and how far it came."""

    id: str
    name: str
    started: float
    meta: Mapping[str, Any]
    process: Mapping[str, Any]
    recorded_status: str
    message: str
    heartbeat: float
    last_step: int | None
    num_records: int
    num_points: int
    num_dropped: int
    tags: tuple[str, ...] = ()
    note: str = ""

    @property
    def status(self) -> Status:
        """What the run is doing now."""
        return status_of(self.recorded_status, self.heartbeat, self.process)

    def summary(self, path: str) -> RunSummary:
        """Return the line of a list of runs."""
        return RunSummary(
            id=self.id, name=self.name, path=path, status=self.status, started=self.started,
            updated=self.heartbeat, last_step=self.last_step, num_points=self.num_points, tags=self.tags,
        )  # fmt: skip


class Source(Protocol):
    """One moment of one run."""

    damage: list[str]  # what could not be read and was left out, in words

    def header(self) -> Header:
        """Return what is known of the run as a whole."""
        ...

    def series(self) -> list[tuple[int, str, int]]:
        """Return (id, name, field) of every series."""
        ...

    def hot(self) -> list[tuple[list[int], Frames]]:
        """Return (series of the columns, frames) of all that is in no chunk yet, in order of arrival."""
        ...

    def last_rows(self, series: int) -> list[ChunkRow]:
        """Return the last row of every level of a series, from level 0 up; empty without any chunk."""
        ...

    def chunk_rows(self, series: int, level: int, seqs: tuple[int, int], steps: tuple[int, int]) -> list[ChunkRow]:
        """Return the rows of a level whose first_seq lies in `seqs` and that overlap `steps`, both ends included."""
        ...

    def bodies(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the encoded points of chunks."""
        ...

    def vector_steps(self, series: int, steps: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (seq, step) of the arrays with a step in `steps`, both ends included, in order of arrival."""
        ...

    def vectors(self, series: int, seqs: Sequence[int]) -> list[VectorRow]:
        """Return the arrays of these records, in order of arrival."""
        ...

    def last_vector(self, series: int) -> list[VectorRow]:
        """Return the arrays that came last, if any."""
        ...

    def texts(self, ids: Sequence[int]) -> dict[int, str]:
        """Return texts by id; those that cannot be read are left out."""
        ...

    def descriptions(self) -> list[tuple[str, str]]:
        """Return (name, JSON) of every description, by name."""
        ...

    def events(self) -> list[Event]:
        """Return the events in order of arrival."""
        ...


OpenSource = Callable[[], AbstractContextManager[Source]]


@contextmanager
def open_file(path: Path) -> Iterator[Source]:
    """Open a run file for one short read transaction.

    Raises:
        StoreError: if it cannot be read.
    """
    with reading(path) as connection:
        source = SqliteSource(connection)
        source.damage += damage_of_log(present(path))
        yield source


def header_of(words: Mapping[str, Any], state: State) -> Header:
    """Return the header from the rows of `header`, decoded, and the state.

    Raises:
        KeyError: if a word that every run has is missing.
    """
    meta = {**words["meta"], "parts": words["parts"]} if "parts" in words else words["meta"]
    return Header(
        words["id"], words["name"], words["started"], meta, words["process"], state.status, state.message,
        state.heartbeat, state.last_step, state.num_records, state.num_points, state.num_dropped,
        tuple(str(tag) for tag in words.get("tags", ())), str(words.get("note", "")),
    )  # fmt: skip


def read_words(connection: sqlite3.Connection, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return what is known of the run as a whole, all of it or only these keys."""
    where = f" WHERE key IN ({', '.join('?' * len(keys))})" if keys else ""
    return {k: json.loads(v) for k, v in connection.execute(f"SELECT key, value FROM header{where}", tuple(keys))}


class SqliteSource:
    """A run file as a source. A row that is not what was written counts as damage and is left out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = _text
        self._connection = connection
        self.damage: list[str] = []

    def header(self) -> Header:
        """Return what is known of the run as a whole."""
        words = {key: json.loads(value) for key, value in self.intact_rows("header")}
        if not any(True for _ in self.intact_rows("state")):
            self.damage.append("how far the run is does not match its checksum")
        return header_of(words, read_state(self._connection))

    def series(self) -> list[tuple[int, str, int]]:
        """Return (id, name, field) of every series."""
        return [(id, name, field) for id, name, field in self.intact_rows("series")]

    def hot(self) -> list[tuple[list[int], Frames]]:
        """Return (series of the columns, frames) of all that is in no chunk yet, in order of arrival."""
        layouts = {id: np.frombuffer(blob, "<i4").tolist() for id, blob in self.intact_rows("layouts")}
        return [(layouts[layout], frames) for layout, frames in self.hot_blocks() if layout in layouts]

    def hot_blocks(self) -> list[tuple[int, Frames]]:
        """Return (layout id, frames) of the intact hot blocks, in order of arrival."""
        with self._noted("the last records"):
            blocks, damage = hot_frames(self._connection)
            self.damage += damage
            return blocks
        return []

    def last_rows(self, series: int) -> list[ChunkRow]:
        """Return the last row of every level of a series, from level 0 up; empty without any chunk."""
        sql = (
            "SELECT first_seq, last_seq, body, summary FROM chunks WHERE series = ? AND level = ? "
            "ORDER BY first_seq DESC LIMIT 1"
        )
        found: list[ChunkRow] = []
        with self._noted(f"chunks of series {series}"):
            while row := self._connection.execute(sql, (series, len(found))).fetchone():
                found.append(ChunkRow(*row))
            return found
        return found or [ChunkRow(0, -1, None, b"")]  # level 0 is read as far as it can be

    def chunk_rows(self, series: int, level: int, seqs: tuple[int, int], steps: tuple[int, int]) -> list[ChunkRow]:
        """Return the rows of a level whose first_seq lies in `seqs` and that overlap `steps`, both ends included."""
        sql = (
            "SELECT first_seq, last_seq, body, summary FROM chunks WHERE series = ? AND level = ? "
            "AND first_seq BETWEEN ? AND ? AND max_step >= ? AND min_step <= ? ORDER BY first_seq"
        )
        rows = self.scan(sql, (series, level, *seqs, *steps), f"chunks of series {series}")
        return [ChunkRow(*row) for row in rows]

    def bodies(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return the encoded points of chunks."""
        found: dict[int, bytes] = {}
        for id in ids:
            with self._noted(f"chunk body {id}"):
                row = self._connection.execute("SELECT body FROM bodies WHERE id = ?", (id,)).fetchone()
                if row is not None:
                    found[id] = row[0]
        return found

    def vector_steps(self, series: int, steps: tuple[int, int]) -> list[tuple[int, int]]:
        """Return (seq, step) of the arrays with a step in `steps`, both ends included, in order of arrival."""
        sql = "SELECT seq, step FROM vectors WHERE series = ? AND step BETWEEN ? AND ? ORDER BY seq"
        return self.scan(sql, (series, *steps), f"arrays of series {series}")

    def vectors(self, series: int, seqs: Sequence[int]) -> list[VectorRow]:
        """Return the arrays of these records, in order of arrival."""
        sql = (
            "SELECT id, vectors.series, seq, step, time, keys, body, vectors.crc, texts.id, text, texts.crc "
            "FROM vectors LEFT JOIN texts ON texts.id = vectors.keys WHERE vectors.series = ? AND seq = ?"
        ).replace("SELECT id", "SELECT vectors.id")
        found: list[VectorRow] = []
        for seq in seqs:
            with self._noted(f"arrays of record {seq}"):
                for *row, crc, text_id, text, text_crc in self._connection.execute(sql, (series, int(seq))):
                    if not is_intact("vectors", row, crc):
                        self.damage.append(f"arrays of record {seq} do not match their checksum")
                        continue
                    if text_id is not None and not is_intact("texts", (text_id, text), text_crc):
                        self.damage.append(f"names of the arrays of record {seq} do not match their checksum")
                        text = None
                    found.append(VectorRow(row[2], row[3], row[4], text, row[6]))
        return found

    def last_vector(self, series: int) -> list[VectorRow]:
        """Return the arrays that came last, if any."""
        with self._noted(f"arrays of series {series}"):
            (seq,) = self._connection.execute("SELECT max(seq) FROM vectors WHERE series = ?", (series,)).fetchone()
            return [] if seq is None else self.vectors(series, [seq])[-1:]
        return []

    def texts(self, ids: Sequence[int]) -> dict[int, str]:
        """Return texts by id; those that cannot be read are left out."""
        found: dict[int, str] = {}
        for id in ids:
            with self._noted(f"text {id}"):
                row = self._connection.execute("SELECT id, text, crc FROM texts WHERE id = ?", (int(id),)).fetchone()
                if row is not None and is_intact("texts", row[:2], row[2]):
                    found[int(id)] = row[1]
                elif row is not None:
                    self.damage.append(f"text {id} does not match its checksum")
        return found

    def descriptions(self) -> list[tuple[str, str]]:
        """Return (name, JSON) of every description, by name."""
        return sorted((name, text) for name, text in self.intact_rows("descriptions"))

    def events(self) -> list[Event]:
        """Return the events in order of arrival."""
        return [Event(*row[1:]) for row in self.intact_rows("events")]

    def check_structure(self) -> None:
        """Let SQLite compare its tables and indexes; what disagrees is said in `damage`."""
        with self._noted("the file"):
            lines = [line for (line,) in self._connection.execute(f"PRAGMA integrity_check({MAX_LINES})")]
            self.damage += [f"the file: {line}" for line in lines if line != "ok"]

    def intact_rows(self, table: str) -> Iterable[Row]:
        """Return the rows of a table that can be reached and fit their checksums, in order of their ids."""
        order = "id" if COLUMNS[table][0] == "id" else COLUMNS[table][0]
        sql = f"SELECT {', '.join(COLUMNS[table])}, crc FROM {table} ORDER BY {order}"
        for *row, crc in self.scan(sql, (), f"rows of {table}"):
            if is_intact(table, row, crc):
                yield tuple(row)
            else:
                self.damage.append(f"a row of {table} does not match its checksum")

    def scan(self, sql: str, values: tuple[Any, ...] = (), what: str = "rows") -> list[Any]:
        """Return all rows that can be reached: those before a damaged page, then from the end those after it."""
        rows: list[Any] = []
        try:
            for row in self._connection.execute(sql, values):
                rows.append(row)
            return rows
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self.damage.append(f"{what}: {error}")
        behind: list[Any] = []
        with contextlib.suppress(sqlite3.DatabaseError):  # the same damage, met from behind
            for row in self._connection.execute(f"{sql} DESC", values):
                behind.append(row)
        return rows + behind[::-1]

    @contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self.damage.append(f"{what}: {error}")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is wrong, and not a lock in the way or the disk away."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _text(data: bytes) -> str:
    """Return text whatever is in it: what is no UTF-8 fails its checksum, not the whole query."""
    return data.decode("utf-8", "backslashreplace")
