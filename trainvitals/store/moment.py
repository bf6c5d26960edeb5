"""One moment of a run put together: the points of a metric, its arrays, its last reading.

Works on any `Source`; the hot frames are decoded once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Reading
from trainvitals.store.codec import DamagedError, Floats, Frames, Ints, Points, decode_arrays
from trainvitals.store.pyramid import ALL_STEPS, Pyramid
from trainvitals.store.resolution import sorted_by_step, thin
from trainvitals.store.schema_sql import Field
from trainvitals.store.source import Source, VectorRow

POINTS_PER_CHUNK_SHOWN = 4  # chunks are read, and not summarised, while there are fewer than one for so many points
SIDES = (Field.ERROR, Field.CONVERGED, Field.SECONDS)


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


class Moment:
    """What a source holds, by the names of metrics."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.names: dict[str, dict[int, int]] = {}  # name -> field -> series id
        for id, name, field_id in source.series():
            self.names.setdefault(name, {})[field_id] = id
        self._hot: dict[int, list[tuple[int, Frames]]] = {}  # series -> (column, frames)
        for series_ids, frames in source.hot():
            for column, series in enumerate(series_ids):
                self._hot.setdefault(series, []).append((column, frames))

    def points(self, name: str, field_id: int, steps: tuple[int, int] = ALL_STEPS) -> Points:
        """Return the points of one field of a metric, in order of arrival."""
        series = self.names.get(name, {}).get(field_id)
        if series is None:
            return Points.join([])
        return _within(Points.join([*Pyramid(self._source, series, steps).points(), *self._hot_points(series)]), steps)

    def thinned(self, name: str, steps: tuple[int, int], max_points: int) -> Points:
        """Return at most `max_points` of the numbers of a metric, by step; see `resolution.thin`."""
        series = self.names.get(name, {}).get(Field.VALUE)
        if series is None:
            return Points.join([])
        pyramid = Pyramid(self._source, series, steps)
        summaries, parts = pyramid.cells(2 * max_points, max_points // POINTS_PER_CHUNK_SHOWN)
        return thin(summaries, _within(Points.join([*parts, *self._hot_points(series)]), steps), max_points)

    def series(self, name: str, steps: tuple[int, int], max_points: int | None) -> Series:
        """Return the points and the arrays of a metric, all of them or at most so many of each."""
        if max_points is None:
            points = sorted_by_step(self.points(name, Field.VALUE, steps))
        else:
            points = self.thinned(name, steps, max_points)
        vectors = [v for v in self.vectors(name, steps, max_points) if "value" in v.arrays]
        vectors.sort(key=lambda vector: vector.step)  # stable: arrival order within a step
        seqs = np.array([v.seq for v in vectors], np.int64)
        wanted = None if max_points is None else np.unique(np.concatenate([points.seq, seqs]))
        error, converged, seconds = (self._side(name, side, steps, wanted) for side in SIDES)
        return Series(
            points, _aligned(error, points.seq), _aligned(converged, points.seq), _aligned(seconds, points.seq, 0.0),
            tuple(vectors), _aligned(converged, seqs), _aligned(seconds, seqs, 0.0),
        )  # fmt: skip

    def _side(self, name: str, field_id: int, steps: tuple[int, int], seqs: Ints | None) -> Points:
        """Return another field of the metric, all of it or, of a long one, the chunks with these records."""
        series = self.names.get(name, {}).get(field_id)
        if seqs is None or series is None:
            return self.points(name, field_id, steps)
        return Points.join([*Pyramid(self._source, series, steps).at(seqs), *self._hot_points(series)])

    def vectors(self, name: str, steps: tuple[int, int], max_vectors: int | None = None) -> list[Vector]:
        """Return the arrays of a metric in order of arrival, all or at most so many, evenly taken by step."""
        series = self.names.get(name, {}).get(Field.VALUE)
        if series is None:
            return []
        places = self._source.vector_steps(series, steps)
        if max_vectors is not None and len(places) > max_vectors:
            places.sort(key=lambda place: place[1])
            taken = np.unique(np.linspace(0, len(places) - 1, max_vectors).round().astype(int))
            places = sorted(places[i] for i in taken)
        return self._decoded(self._source.vectors(series, [seq for seq, _ in places]))

    def count(self, name: str) -> int:
        """Return how many values a metric has, numbers and arrays, from the summaries of its chunks."""
        series = self.names.get(name, {}).get(Field.VALUE)
        if series is None:
            return 0
        summarised = int(Pyramid(self._source, series).summaries()["num_points"].sum())
        hot = sum(len(points) for points in self._hot_points(series))
        return summarised + hot + len(self._source.vector_steps(series, ALL_STEPS))

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

    def _hot_points(self, series: int) -> list[Points]:
        return [frames.column(column) for column, frames in self._hot.get(series, ())]

    def _last(self, series: int) -> Points:
        """Return the last point of a series in order of arrival: a hot one, or that of the last chunk."""
        hot = self._hot_points(series)
        return Points.join(hot)[-1:] if hot else Pyramid(self._source, series).last()

    def _last_vector(self, name: str) -> Vector | None:
        series = self.names[name].get(Field.VALUE)
        if series is None:
            return None
        return next(iter(self._decoded(self._source.last_vector(series))), None)

    def _decoded(self, rows: Sequence[VectorRow]) -> list[Vector]:
        found = []
        for row in rows:
            try:
                keys = tuple(json.loads(row.keys)) if row.keys else ()
                found.append(Vector(row.seq, row.step, row.time, keys, decode_arrays(row.body)))
            except DamagedError as error:
                self._source.damage.append(f"arrays of record {row.seq}: {error}")
        return found

    def _assemble(self, cells: Mapping[int, float], vector: Vector | None, step: int) -> Reading:
        arrays = dict(vector.arrays) if vector else {}
        texts = self._source.texts([int(cells[f]) for f in (Field.CONTEXT, Field.DETAILS, Field.MISSING) if f in cells])

        def text(field_id: int) -> str | None:
            return texts.get(int(cells[field_id])) if field_id in cells else None

        context, details = json.loads(text(Field.CONTEXT) or "{}"), json.loads(text(Field.DETAILS) or "{}")
        keys = vector.keys if vector and vector.keys else tuple(details.pop("keys", ()))
        prefix = "details."
        details.update({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
        provenance = context.get("provenance", {})
        if provenance.get("step") == "record":
            provenance["step"] = step
        is_missing = Field.MISSING in cells
        return Reading(
            value=arrays.get("value", cells.get(Field.VALUE)),
            error=arrays.get("error", cells.get(Field.ERROR)),
            converged=bool(cells[Field.CONVERGED]) if Field.CONVERGED in cells else None,
            keys=keys,
            missing=(text(Field.MISSING) or "the reason is damaged in the file") if is_missing else None,
            definition=context.get("definition", ""),
            hvps=int(cells.get(Field.HVPS, 0)),
            seconds=cells.get(Field.SECONDS, 0.0),
            details=details,
            provenance=provenance,
        )


def bounds(start: int | None, stop: int | None) -> tuple[int, int]:
    """Return the first and the last step wanted, as 64-bit integers hold them."""
    lowest, highest = ALL_STEPS
    low = lowest if start is None else max(int(start), lowest)
    high = highest if stop is None else min(int(stop) - 1, highest)
    return min(low, highest), max(high, lowest)


def _within(points: Points, steps: tuple[int, int]) -> Points:
    low, high = steps
    return points if steps == ALL_STEPS else points[(points.step >= low) & (points.step <= high)]


def _aligned(side: Points, seq: Ints, absent: float = np.nan) -> Floats:
    """Return the values of `side` at the records `seq` (n,), `absent` where it has none."""
    if not len(side) or not len(seq):
        return np.full(len(seq), absent)
    at = np.minimum(np.searchsorted(side.seq, seq), len(side) - 1)
    return np.where(side.seq[at] == seq, side.value[at], absent)
