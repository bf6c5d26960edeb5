"""From hot to cold: frames are cut into chunks of 1,024 points a series.

The last chunk of a series may be short; the next compaction fills it up. So nothing that was cut
has to be kept in memory, and a run that was killed is compacted by the same function.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable, Mapping

import numpy as np

from trainvitals.store.codec import Frames, Points, decode_chunk, decode_frames, encode_axis, encode_chunk, summarise
from trainvitals.store.schema_sql import POINTS_PER_CHUNK

_INSERT_CHUNK = f"INSERT INTO chunks VALUES ({', '.join('?' * 13)})"


class _Axes:
    """Axes already encoded in this compaction: series logged together share theirs."""

    def __init__(self) -> None:
        self._encoded: dict[tuple[int, int], bytes] = {}

    def encode(self, points: Points) -> bytes:
        first, last = int(points.seq[0]), int(points.seq[-1])
        if last - first + 1 != len(points):  # only gapless record numbers name their steps and times
            return encode_axis(points.seq, points.step, points.time)
        if (first, last) not in self._encoded:
            self._encoded[first, last] = encode_axis(points.seq, points.step, points.time)
        return self._encoded[first, last]


def compact(connection: sqlite3.Connection, layouts: Mapping[int, list[int]],
            fresh: Iterable[tuple[int, Frames]] = ()) -> None:  # fmt: skip
    """Move all hot frames, and fresh ones that were never hot, into chunks; inside the caller's transaction.

    Args:
        connection: the writer's connection, in a transaction.
        layouts: series ids of the columns, by layout id.
        fresh: (layout id, frames) younger than everything in the file.
    """
    columns: dict[int, list[Points]] = {}
    for layout, frames in (*hot_frames(connection), *fresh):
        for index, series in enumerate(layouts[layout]):
            columns.setdefault(series, []).append(frames.column(index))
    axes = _Axes()
    for series, parts in columns.items():
        _add_points(connection, series, Points.join(parts), axes)
    connection.execute("DELETE FROM hot")


def hot_frames(connection: sqlite3.Connection) -> list[tuple[int, Frames]]:
    """Return (layout id, frames) of every hot block."""
    rows = connection.execute("SELECT layout, body FROM hot ORDER BY id")
    return [(layout, decode_frames(body)) for layout, body in rows]


def _add_points(connection: sqlite3.Connection, series: int, points: Points, axes: _Axes) -> None:
    open_chunk = connection.execute(
        "SELECT first_seq, body, num_points FROM chunks WHERE series = ? ORDER BY first_seq DESC LIMIT 1", (series,)
    ).fetchone()
    if open_chunk and open_chunk[2] < POINTS_PER_CHUNK:
        first_seq, body, _ = open_chunk
        (data,) = connection.execute("SELECT body FROM bodies WHERE id = ?", (body,)).fetchone()
        points = Points.join([decode_chunk(data), points])
        connection.execute("DELETE FROM chunks WHERE series = ? AND first_seq = ?", (series, first_seq))
        connection.execute("DELETE FROM bodies WHERE id = ?", (body,))
    for start in range(0, len(points), POINTS_PER_CHUNK):
        _insert_chunk(connection, series, points[start : start + POINTS_PER_CHUNK], axes)


def _insert_chunk(connection: sqlite3.Connection, series: int, points: Points, axes: _Axes) -> None:
    data = encode_chunk(axes.encode(points), np.ascontiguousarray(points.value))
    body = connection.execute("INSERT INTO bodies (body) VALUES (?)", (data,)).lastrowid
    summary = dataclasses.astuple(summarise(points))
    connection.execute(_INSERT_CHUNK, (series, int(points.seq[0]), body, *summary))
