"""From hot to cold: frames are cut into chunks of 1,024 points a series, and chunks get summaries.

The last chunk of a series may be short; the next compaction fills it up. So nothing that was cut
has to be kept in memory, and a run that was killed is compacted by the same function. Every eight
complete rows of one level get a row together on the next.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

import numpy as np

from trainvitals.store.codec import DamagedError, Frames, Points, decode_chunk, decode_frames, encode_axis, encode_chunk
from trainvitals.store.rows import Rows
from trainvitals.store.schema_sql import POINTS_PER_CHUNK, ROWS_PER_SUMMARY
from trainvitals.store.summaries import Summaries, decode_summaries, encode_summary, merge, summarise


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


def compact(rows: Rows, layouts: Mapping[int, list[int]], fresh: Iterable[tuple[int, Frames]] = ()) -> list[str]:
    """Move all hot frames, and fresh ones that were never hot, into chunks; inside the caller's transaction.

    Args:
        rows: of the file, in a transaction.
        layouts: series ids of the columns, by layout id.
        fresh: (layout id, frames) younger than everything in the file.

    Returns:
        What was found damaged and could not be moved, in words.
    """
    columns: dict[int, list[Points]] = {}
    hot, damage = hot_frames(rows.connection)
    for layout, frames in (*hot, *fresh):
        for index, series in enumerate(layouts[layout]):
            columns.setdefault(series, []).append(frames.column(index))
    axes = _Axes()
    for series, parts in columns.items():
        add_points(rows, series, Points.join(parts), axes)
    rows.clear("hot")
    return damage


def hot_frames(connection: sqlite3.Connection) -> tuple[list[tuple[int, Frames]], list[str]]:
    """Return (layout id, frames) of every hot block that is intact, and a line for each that is not."""
    found, damage = [], []
    for id, layout, num_frames, body in connection.execute("SELECT id, layout, num_frames, body FROM hot ORDER BY id"):
        try:
            found.append((layout, decode_frames(body)))
        except DamagedError as error:
            damage.append(f"{num_frames} of the last records (hot block {id}): {error}")
    return found, damage


def add_points(rows: Rows, series: int, points: Points, axes: _Axes | None = None) -> None:
    """Append points to the chunks of a series, in order of arrival."""
    axes = axes or _Axes()
    before = _open_chunk(rows, series)
    if before is not None:
        points = Points.join([before, points])
    for start in range(0, len(points), POINTS_PER_CHUNK):
        _put_chunk(rows, series, points[start : start + POINTS_PER_CHUNK], axes)
    if len(points) >= POINTS_PER_CHUNK:
        raise_summaries(rows, series)


def _open_chunk(rows: Rows, series: int) -> Points | None:
    """Take the last chunk's points back out of the file if there is room in it; a damaged one is left as it is."""
    found = rows.connection.execute(
        "SELECT first_seq, body, summary FROM chunks WHERE series = ? AND level = 0 ORDER BY first_seq DESC LIMIT 1",
        (series,),
    ).fetchone()
    if found is None:
        return None
    first_seq, body, summary = found
    try:
        if decode_summaries([summary])["num_points"][0] >= POINTS_PER_CHUNK:
            return None
        (data,) = rows.connection.execute("SELECT body FROM bodies WHERE id = ?", (body,)).fetchone() or (b"",)
        points = decode_chunk(data)
    except DamagedError:
        return None
    rows.delete("chunks", (series, 0, first_seq))
    rows.delete("bodies", (body,))
    return points


def _put_chunk(rows: Rows, series: int, points: Points, axes: _Axes) -> None:
    values = np.ascontiguousarray(points.value)
    body = rows.next_id("bodies")
    rows.put("bodies", (body, encode_chunk(axes.encode(points), values, series)))
    summary = summarise(points, series)
    _put_summary(rows, summary, body, encode_summary(summary, values))


def _put_summary(rows: Rows, summary: Summaries, body: int | None, blob: bytes) -> None:
    keys = (int(summary[name][0]) for name in ("series", "level", "first_seq", "last_seq", "min_step", "max_step"))
    rows.put("chunks", (*keys, body, blob))


def raise_summaries(rows: Rows, series: int) -> None:
    """Give every eight complete rows that have none a summary together, level by level."""
    level = 0
    while _raise_level(rows, series, level):
        level += 1


def _raise_level(rows: Rows, series: int, level: int) -> bool:
    """Merge rows of a level that no row above covers; True if there was a whole group."""
    covered = rows.connection.execute(
        "SELECT last_seq FROM chunks WHERE series = ? AND level = ? ORDER BY first_seq DESC LIMIT 1",
        (series, level + 1),
    ).fetchone()
    blobs = rows.connection.execute(
        "SELECT summary FROM chunks WHERE series = ? AND level = ? AND first_seq > ? ORDER BY first_seq",
        (series, level, covered[0] if covered else -1),
    ).fetchall()
    try:
        waiting = decode_summaries([blob for (blob,) in blobs])
    except DamagedError:
        return False  # the rows below are read one by one then
    if level == 0 and len(waiting) and waiting["num_points"][-1] < POINTS_PER_CHUNK:
        waiting = waiting[:-1]
    num_groups = len(waiting) // ROWS_PER_SUMMARY
    for group in range(num_groups):
        whole = merge(waiting[group * ROWS_PER_SUMMARY : (group + 1) * ROWS_PER_SUMMARY])
        _put_summary(rows, whole, None, encode_summary(whole))
    return num_groups > 0
