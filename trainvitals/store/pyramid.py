"""The chunks of one series, read as coarsely as may be.

Rows of a level are taken down to finer ones where the wanted steps cut through them, and where there
are too few of them; a row that is damaged is replaced by the rows below it, and a damaged chunk is
left out alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trainvitals.store.codec import DamagedError, Ints, Points, decode_chunk
from trainvitals.store.schema_sql import ROWS_PER_SUMMARY
from trainvitals.store.source import ChunkRow, Source
from trainvitals.store.summaries import SUMMARY, Summaries, decode_summaries, nonfinite_mask, summarise

_INT64 = np.iinfo(np.int64)
ALL_STEPS = (int(_INT64.min), int(_INT64.max))
ALL_SEQS = (0, int(_INT64.max))


@dataclass
class Level:
    """Rows of one level of a series with their summaries, (n,) both."""

    number: int
    rows: list[ChunkRow]
    summaries: Summaries

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, mask: NDArray[np.bool_]) -> Level:
        return Level(self.number, [row for row, keep in zip(self.rows, mask, strict=True) if keep],
                     self.summaries[mask])  # fmt: skip

    def runs(self) -> Iterator[tuple[int, int]]:
        """Return (first_seq, last_seq) of rows that follow each other without a gap in the numbers."""
        first = last = None
        for row in self.rows:
            if last is not None and row.first_seq == last + 1:
                last = row.last_seq
                continue
            if first is not None and last is not None:
                yield first, last
            first, last = row.first_seq, row.last_seq
        if first is not None and last is not None:
            yield first, last


class Pyramid:
    """One series of a source, within a range of steps (both ends included).

    Args:
        source: one moment of a run.
        series: id of the series.
        steps: first and last step wanted.
    """

    def __init__(self, source: Source, series: int, steps: tuple[int, int] = ALL_STEPS) -> None:
        self._source = source
        self._series = series
        self._steps = steps

    def points(self) -> list[Points]:
        """Return the points of all chunks that overlap the range, in order of arrival."""
        return self._decoded(self._read(0, [ALL_SEQS]))

    def summaries(self) -> Summaries:
        """Return the summaries of all chunks that overlap the range and can be read, in order of arrival."""
        summaries = self._read(0, [ALL_SEQS]).summaries
        return summaries[summaries["num_points"] > 0]

    def last(self) -> Points:
        """Return the last point (1,) of the last chunk that can be read; none (0,) without any."""
        for row in self._source.last_rows(self._series)[:1]:
            points = self._decoded(Level(0, [row], np.empty(0, SUMMARY)))
            if points:
                return points[0][-1:]
            points = self.points()
            return points[-1][-1:] if points else Points.join([])
        return Points.join([])

    def check(self) -> None:
        """Read everything of the series, so that what is damaged is said in the source's `damage`."""
        levels = [self._read(i, [ALL_SEQS]) for i in range(len(self._source.last_rows(self._series)) or 1)]
        for below, above in pairwise(levels):
            self._check_sums(below.summaries, above)
        level = levels[0]
        for row, summary in zip(level.rows, level.summaries, strict=True):
            for points in self._decoded(Level(0, [row], level.summaries[:0])):
                found = summarise(points, self._series)
                mask = nonfinite_mask(row.summary) if summary["num_points"] else ~np.isfinite(points.value)
                is_same = found.tobytes() == summary.tobytes() or not summary["num_points"]
                if not is_same or not np.array_equal(mask, ~np.isfinite(points.value)):
                    self._source.damage.append(f"{self._words(row)}: the summary is not that of the points")

    def _check_sums(self, below: Summaries, above: Level) -> None:
        """Compare how many points rows have with those of the rows below them."""
        sums = np.concatenate([[0], np.cumsum(below["num_points"])])
        for row, summary in zip(above.rows, above.summaries, strict=True):
            start, stop = np.searchsorted(below["first_seq"], [row.first_seq, row.last_seq + 1])
            if summary["num_points"] and sums[stop] - sums[start] != summary["num_points"]:
                self._source.damage.append(f"{self._words(row)}: a chunk of them cannot be found")

    def cells(self, max_rows: int, min_rows: int) -> tuple[Summaries, list[Points]]:
        """Return what the range consists of: summaries of its inside, and points where they are needed.

        The first and the last chunk come as points, as do those that the range cuts, and all of them
        when there are at most `min_rows` chunks.

        Args:
            max_rows: most summaries.
            min_rows: chunks below which a summary for each would be too few.
        """
        ends = self._source.last_rows(self._series)
        kept = [np.empty(0, SUMMARY)]
        is_fine_enough = False
        level = Level(len(ends), [], kept[0])
        for number in reversed(range(len(ends))):
            covered = ends[number + 1].last_seq if number + 1 < len(ends) else -1
            level = self._read(number, [*level.runs(), (covered + 1, ALL_SEQS[1])])
            is_fine_enough |= len(level) * ROWS_PER_SUMMARY > max_rows if number else len(level) > min_rows
            if is_fine_enough:
                inside = self._is_inside(level.summaries)
                kept.append(level.summaries[inside])
                level = level[~inside]
        return np.concatenate(kept), self._decoded(level)

    def at(self, seqs: Ints) -> list[Points]:
        """Return the points of the chunks in which these records (n,), sorted, may be."""
        ends = self._source.last_rows(self._series)
        level = Level(len(ends), [], np.empty(0, SUMMARY))
        for number in reversed(range(len(ends))):
            covered = ends[number + 1].last_seq if number + 1 < len(ends) else -1
            level = self._read(number, [*level.runs(), (covered + 1, ALL_SEQS[1])])
            starts = np.searchsorted(seqs, [row.first_seq for row in level.rows])
            stops = np.searchsorted(seqs, [row.last_seq for row in level.rows], side="right")
            level = level[stops > starts]
        return self._decoded(level)

    def _is_inside(self, summaries: Summaries) -> NDArray[np.bool_]:
        """Return which rows may stand for their points: whole, inside the range, and not at its ends."""
        low, high = self._steps
        inside = (summaries["min_step"] >= low) & (summaries["max_step"] <= high) & (summaries["num_points"] > 0)
        if len(inside):
            inside[np.argmin(summaries["min_step"])] = False
            inside[len(inside) - 1 - np.argmax(summaries["max_step"][::-1])] = False
        return inside

    def _read(self, number: int, seqs: list[tuple[int, int]]) -> Level:
        rows = [row for part in seqs for row in self._source.chunk_rows(self._series, number, part, self._steps)]
        try:
            summaries = decode_summaries([row.summary for row in rows])
            if np.all((summaries["series"] == self._series) & (summaries["level"] == number)):
                return Level(number, rows, summaries)
        except DamagedError:
            pass
        return self._read_one_by_one(number, rows)

    def _read_one_by_one(self, number: int, rows: list[ChunkRow]) -> Level:
        """Decode what can be; a damaged row gets an empty summary, which is never inside, so what is below is read."""
        found = []
        for row in rows:
            try:
                summary = decode_summaries([row.summary])
                if summary["series"][0] != self._series or summary["level"][0] != number:
                    raise DamagedError("a summary of points is in the wrong place")
            except DamagedError as error:
                self._source.damage.append(f"{self._words(row)}: {error}")
                summary = np.zeros(1, SUMMARY)
            found.append(summary)
        return Level(number, rows, np.concatenate(found) if found else np.empty(0, SUMMARY))

    def _decoded(self, level: Level) -> list[Points]:
        bodies = self._source.bodies([row.body for row in level.rows if row.body is not None])
        parts = []
        for row in level.rows:
            try:
                if row.body is not None:
                    parts.append(decode_chunk(bodies.get(row.body, b"")))
            except DamagedError as error:
                self._source.damage.append(f"{self._words(row)}: {error}")
        return parts

    def _words(self, row: ChunkRow) -> str:
        return f"records {row.first_seq} to {row.last_seq} of series {self._series}"
