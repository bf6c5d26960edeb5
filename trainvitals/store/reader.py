"""The reader of a run: one short read-only transaction a call, NumPy arrays out.

It sees what was committed when the call began, whether the run is live, killed or finished. Points
are sorted by step; points of one step stay in order of arrival, and none is left out, so a run that
went back to an earlier step shows both its passes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Description, Event, Reading, RunSummary, Status
from trainvitals.store.codec import Floats, Frames, Ints, Points, decode_arrays, decode_chunk
from trainvitals.store.compaction import hot_frames
from trainvitals.store.database import reading
from trainvitals.store.liveness import status_of
from trainvitals.store.schema_sql import Field

_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Vector:
    """The arrays of one reading."""

    seq: int
    step: int
    time: float
    keys: tuple[str, ...]
    arrays: Mapping[str, NDArray]  # "value", "error", "details.grid"...


@dataclass(frozen=True)
class Series:
    """All points of one metric, n numbers and the arrays, each sorted by step, then arrival."""

    points: Points  # numbers; arrays (n,)
    error: Floats  # (n,), NaN where there is none
    converged: Floats  # (n,), 1, 0 or NaN where there is nothing to converge
    seconds: Floats  # (n,)
    vectors: tuple[Vector, ...] = ()
    vector_converged: Floats = field(default_factory=lambda: np.empty(0))  # one a vector
    vector_seconds: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Overview:
    """A series as its chunks summarise it, without the points: one row a chunk."""

    num_points: Ints
    min_step: Ints
    max_step: Ints
    min_value: Floats  # of finite values, NaN without any
    max_value: Floats
    step_of_min: Ints
    step_of_max: Ints
    num_nonfinite: Ints


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

    @property
    def status(self) -> Status:
        """What the run is doing now."""
        return status_of(self.recorded_status, self.heartbeat, self.process)

    def summary(self, path: str | os.PathLike[str]) -> RunSummary:
        """Return the line of a list of runs."""
        return RunSummary(
            id=self.id, name=self.name, path=os.fspath(path), status=self.status, started=self.started,
            updated=self.heartbeat, last_step=self.last_step, num_points=self.num_points,
        )  # fmt: skip


class RunReader:
    """Reads one run file. Nothing is held open between calls, so the writer can close beside it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def header(self) -> Header:
        """Return what is known of the run as a whole.

        Raises:
            StoreError: if the file cannot be read.
        """
        with reading(self.path) as connection:
            return read_header(connection)

    def names(self) -> list[str]:
        """Return the names of all metrics that have a point or a missing point, sorted."""
        with reading(self.path) as connection:
            return [name for (name,) in connection.execute("SELECT DISTINCT name FROM series ORDER BY name")]

    def descriptions(self) -> dict[str, Description]:
        """Return what is known of the metrics, by name; one of a newer version that cannot be read is left out."""
        with reading(self.path) as connection:
            rows = connection.execute("SELECT name, json FROM descriptions ORDER BY name").fetchall()
        found: dict[str, Description] = {}
        for name, text in rows:
            with contextlib.suppress(TypeError, ValueError):  # a field without a default came from elsewhere
                found[name] = Description.from_json(text)
        return found

    def events(self) -> list[Event]:
        """Return the events in order of arrival."""
        with reading(self.path) as connection:
            rows = connection.execute("SELECT step, time, kind, message FROM events ORDER BY id").fetchall()
        return [Event(*row) for row in rows]

    def series(self, name: str, start: int | None = None, stop: int | None = None) -> Series:
        """Return the points of a metric with start <= step < stop; empty for an unknown name."""
        with reading(self.path) as connection:
            file = _File(connection)
            points = _sorted(file.points(name, Field.VALUE, start, stop))
            sides = {f: file.points(name, f, start, stop) for f in (Field.ERROR, Field.CONVERGED, Field.SECONDS)}
            vectors = file.vectors(name, start, stop)
        vectors.sort(key=lambda vector: vector.step)  # stable: arrival order within a step
        vectors = [v for v in vectors if "value" in v.arrays]
        seqs = np.array([v.seq for v in vectors], np.int64)
        return Series(
            points, _aligned(sides[Field.ERROR], points.seq), _aligned(sides[Field.CONVERGED], points.seq),
            _aligned(sides[Field.SECONDS], points.seq, 0.0),
            tuple(vectors), _aligned(sides[Field.CONVERGED], seqs), _aligned(sides[Field.SECONDS], seqs, 0.0),
        )  # fmt: skip

    def numbers(self, name: str) -> Points:
        """Return the numbers of a metric in order of arrival, without errors, costs and arrays."""
        with reading(self.path) as connection:
            return _File(connection).points(name, Field.VALUE)

    def sampled_vectors(self, name: str, most: int) -> list[Vector]:
        """Return the arrays of a metric in order of arrival: all, or about `most` at even distances and the last.

        The distance is a power of two of records, so that a run that goes on keeps most of those it has.
        """
        with reading(self.path) as connection:
            return [v for v in _File(connection).sampled_vectors(name, most) if "value" in v.arrays]

    def last(self, name: str) -> Reading:
        """Return the reading of a metric that came last; a missing one for an unknown name."""
        with reading(self.path) as connection:
            file = _File(connection)
            return file.last_reading(name)[1] if name in file.names else Reading.absent("not measured")

    def missing(self, name: str) -> list[tuple[int, float, str]]:
        """Return (step, time, reason) of every moment at which the metric was undefined."""
        with reading(self.path) as connection:
            file = _File(connection)
            points = _sorted(file.points(name, Field.MISSING))
            texts = file.texts(points.value)
        return [(int(s), float(t), texts[int(v)])
                for s, t, v in zip(points.step, points.time, points.value, strict=True)]  # fmt: skip

    def latest(self) -> dict[str, tuple[int, Reading]]:
        """Return (step, reading) of the point of every metric that came last, missing ones too."""
        with reading(self.path) as connection:
            file = _File(connection)
            return {name: file.last_reading(name) for name in sorted(file.names)}

    def overview(self, name: str) -> Overview:
        """Return the chunk summaries of a metric's numbers; points still hot are not in it."""
        with reading(self.path) as connection:
            rows = connection.execute(
                "SELECT num_points, min_step, max_step, min_value, max_value, step_of_min, step_of_max, nonfinite "
                "FROM chunks JOIN series ON series.id = chunks.series WHERE name = ? AND field = ? ORDER BY first_seq",
                (name, int(Field.VALUE)),
            ).fetchall()
        counts = [(0 if r[7] is None else int(np.unpackbits(np.frombuffer(r[7], np.uint8)).sum())) for r in rows]
        whole = [np.array([r[i] if r[i] is not None else r[1] for r in rows], np.int64) for i in (0, 1, 2, 5, 6)]
        low, high = (np.array([r[i] if r[i] is not None else np.nan for r in rows], np.float64) for i in (3, 4))
        return Overview(whole[0], whole[1], whole[2], low, high, whole[3], whole[4], np.array(counts, np.int64))


def read_header(connection: sqlite3.Connection) -> Header:
    """Return the header of an open run file."""
    header = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM header")}
    row = connection.execute(
        "SELECT status, message, heartbeat, last_step, num_records, num_points, num_dropped FROM state"
    ).fetchone()
    return Header(header["id"], header["name"], header["started"], header["meta"], header["process"], *row)


class _File:
    """One read transaction: series ids by name, and the hot frames decoded once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.names: dict[str, dict[int, int]] = {}  # name -> field -> series id
        for id, name, field_id in connection.execute("SELECT id, name, field FROM series"):
            self.names.setdefault(name, {})[field_id] = id
        self._hot: dict[int, list[tuple[int, Frames]]] = {}  # series -> (column, frames)
        layouts = {
            id: np.frombuffer(blob, "<i4").tolist() for id, blob in connection.execute("SELECT * FROM layouts")
        }
        for layout, frames in hot_frames(connection):
            for column, series in enumerate(layouts[layout]):
                self._hot.setdefault(series, []).append((column, frames))

    def points(self, name: str, field_id: int, start: int | None = None, stop: int | None = None) -> Points:
        """Return the points of one field of a metric, in order of arrival."""
        series = self.names.get(name, {}).get(field_id)
        if series is None:
            return Points.join([])
        low, high = _bounds(start, stop)
        rows = self._connection.execute(
            "SELECT bodies.body FROM chunks JOIN bodies ON bodies.id = chunks.body "
            "WHERE series = ? AND max_step >= ? AND min_step <= ? ORDER BY first_seq",
            (series, low, high),
        )
        parts = [decode_chunk(body) for (body,) in rows]
        parts += [frames.column(column) for column, frames in self._hot.get(series, ())]
        points = Points.join(parts)
        return points if start is None and stop is None else points[(points.step >= low) & (points.step <= high)]

    def _last(self, series: int) -> Points:
        """Return the last points of a series in order of arrival: those still hot, or the last chunk."""
        hot = self._hot.get(series)
        if hot:
            return Points.join([frames.column(column) for column, frames in hot])[-1:]
        row = self._connection.execute(
            "SELECT bodies.body FROM chunks JOIN bodies ON bodies.id = chunks.body "
            "WHERE series = ? ORDER BY first_seq DESC LIMIT 1", (series,),
        ).fetchone()  # fmt: skip
        return decode_chunk(row[0])[-1:] if row else Points.join([])

    def vectors(self, name: str, start: int | None = None, stop: int | None = None) -> list[Vector]:
        """Return the arrays of a metric, in order of arrival."""
        series = self.names.get(name, {}).get(Field.VALUE)
        rows = self._connection.execute(
            "SELECT seq, step, time, text, body FROM vectors LEFT JOIN texts ON texts.id = vectors.keys "
            "WHERE series = ? AND step BETWEEN ? AND ? ORDER BY seq", (series, *_bounds(start, stop)),
        )  # fmt: skip
        return [_vector(row) for row in rows]

    def sampled_vectors(self, name: str, most: int) -> list[Vector]:
        """Return about `most` arrays of a metric at even distances in `seq`, and the last, in order of arrival."""
        series = self.names.get(name, {}).get(Field.VALUE)
        counted = "SELECT COUNT(*), MIN(seq), MAX(seq) FROM vectors WHERE series = ?"
        count, low, high = self._connection.execute(counted, (series,)).fetchone()
        if count <= most:
            return self.vectors(name)
        apart = 1 << max(0, ((high - low) // most).bit_length())
        columns = "seq, step, time, (SELECT text FROM texts WHERE id = keys), body"
        found, seq = [], low
        while seq <= high:  # the index leads to each in a few pages
            row = self._connection.execute(
                f"SELECT {columns} FROM vectors WHERE series = ? AND seq >= ? ORDER BY seq LIMIT 1", (series, seq)
            ).fetchone()
            found.append(row)
            seq = (row[0] // apart + 1) * apart
        if found[-1][0] != high:
            found.append(self._connection.execute(
                f"SELECT {columns} FROM vectors WHERE series = ? AND seq = ?", (series, high)).fetchone())
        return [_vector(row) for row in found]

    def _last_vector(self, name: str) -> Vector | None:
        series = self.names[name].get(Field.VALUE)
        row = self._connection.execute(
            "SELECT seq, step, time, text, body FROM vectors LEFT JOIN texts ON texts.id = vectors.keys "
            "WHERE series = ? ORDER BY seq DESC LIMIT 1", (series,),
        ).fetchone()  # fmt: skip
        return _vector(row) if row else None

    def last_reading(self, name: str) -> tuple[int, Reading]:
        """Return the last reading of a metric with its step."""
        ends = {field_id: self._last(series) for field_id, series in self.names[name].items()}
        vector = self._last_vector(name)
        seqs = [int(p.seq[0]) for p in ends.values() if len(p)] + ([vector.seq] if vector else [])
        seq = max(seqs, default=-1)
        cells = {f: (int(p.step[0]), float(p.value[0])) for f, p in ends.items() if len(p) and p.seq[0] == seq}
        if vector is not None and vector.seq != seq:
            vector = None
        step = vector.step if vector else next((step for step, _ in cells.values()), 0)
        return step, self._assemble({f: value for f, (_, value) in cells.items()}, vector, step)

    def _assemble(self, cells: Mapping[int, float], vector: Vector | None, step: int) -> Reading:
        arrays = dict(vector.arrays) if vector else {}
        ids = [cells[f] for f in (Field.CONTEXT, Field.DETAILS, Field.MISSING) if f in cells]
        texts = self.texts(ids)
        context = json.loads(texts[int(cells[Field.CONTEXT])]) if Field.CONTEXT in cells else {}
        details = json.loads(texts[int(cells[Field.DETAILS])]) if Field.DETAILS in cells else {}
        keys = vector.keys if vector and vector.keys else tuple(details.pop("keys", ()))
        prefix = "details."
        details.update({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        provenance = context.get("provenance", {})
        if provenance.get("step") == "record":
            provenance["step"] = step
        return Reading(
            value=arrays.get("value", cells.get(Field.VALUE)),
            error=arrays.get("error", cells.get(Field.ERROR)),
            converged=bool(cells[Field.CONVERGED]) if Field.CONVERGED in cells else None,
            keys=keys,
            missing=texts[int(cells[Field.MISSING])] if Field.MISSING in cells else None,
            definition=context.get("definition", ""),
            hvps=int(cells.get(Field.HVPS, 0)),
            seconds=cells.get(Field.SECONDS, 0.0),
            details=details,
            provenance=provenance,
        )

    def texts(self, ids: Sequence[float] | NDArray) -> dict[int, str]:
        """Return texts by id."""
        found: dict[int, str] = {}
        for id in {int(i) for i in ids}:
            row = self._connection.execute("SELECT text FROM texts WHERE id = ?", (id,)).fetchone()
            found[id] = row[0] if row else ""
        return found


def _vector(row: tuple) -> Vector:
    seq, step, time, keys, body = row
    return Vector(seq, step, time, tuple(json.loads(keys)) if keys else (), decode_arrays(body))


def _bounds(start: int | None, stop: int | None) -> tuple[int, int]:
    """Return the first and the last step wanted, as SQLite holds them."""
    low = _INT64.min if start is None else max(int(start), _INT64.min)
    high = _INT64.max if stop is None else min(int(stop) - 1, _INT64.max)
    return min(low, _INT64.max), max(high, _INT64.min)


def _sorted(points: Points) -> Points:
    if np.all(points.step[1:] >= points.step[:-1]):
        return points
    return points[np.argsort(points.step, kind="stable")]


def _aligned(side: Points, seq: Ints, absent: float = np.nan) -> Floats:
    """Return the values of `side` at the records `seq` (n,), `absent` where it has none."""
    if not len(side) or not len(seq):
        return np.full(len(seq), absent)
    at = np.minimum(np.searchsorted(side.seq, seq), len(side) - 1)
    return np.where(side.seq[at] == seq, side.value[at], absent)
