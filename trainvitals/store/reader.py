"""The reader of a run: one short read-only transaction a call, NumPy arrays out.

It sees what was committed when the call began, whether the run is live, killed or finished. Points
are sorted by step; points of one step stay in order of arrival, and none is left out, so a run that
went back to an earlier step shows both its passes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from trainvitals.schema import Description, Event, Reading
from trainvitals.store.codec import Points
from trainvitals.store.errors import StoreError
from trainvitals.store.moment import Moment, Series, Vector, bounds
from trainvitals.store.pyramid import ALL_STEPS, Pyramid
from trainvitals.store.resolution import MIN_POINTS, sorted_by_step
from trainvitals.store.schema_sql import Field
from trainvitals.store.source import Header, OpenSource, Source, SqliteSource, open_file
from trainvitals.store.summaries import SUMMARY, Summaries

__all__ = ["MIN_POINTS", "Header", "RunReader", "Series", "Source", "Vector"]


class RunReader:
    """Reads one run. Nothing is held open between calls, so the writer can close beside it.

    What is damaged is left out of what a call returns; `damage` says what that is.

    Args:
        where: path of a run file, or what opens another source.
    """

    def __init__(self, where: str | os.PathLike[str] | OpenSource) -> None:
        self.path = Path() if callable(where) else Path(where)
        self._open: OpenSource = where if callable(where) else partial(open_file, self.path)

    @contextlib.contextmanager
    def held(self) -> Iterator[RunReader]:
        """Yield a reader of this moment: one transaction for all its calls, for who makes many and is soon done."""
        with self._open() as source:
            yield RunReader(lambda: contextlib.nullcontext(source))

    def header(self) -> Header:
        """Return what is known of the run as a whole.

        Raises:
            StoreError: if it cannot be read.
        """
        with self._open() as source:
            try:
                return source.header()
            except (KeyError, TypeError, ValueError) as error:
                raise StoreError(
                    f"expected a TrainVitals run file, got {self.path} that is damaged: what it is called and when it "
                    f"began cannot be read ({type(error).__name__}: {error}); try `trainvitals doctor --repair`"
                ) from error

    def names(self) -> list[str]:
        """Return the names of all metrics that have a point or a missing point, sorted."""
        with self._open() as source:
            return sorted({name for _, name, _ in source.series()})

    def descriptions(self) -> dict[str, Description]:
        """Return what is known of the metrics, by name; one of a newer version that cannot be read is left out."""
        with self._open() as source:
            rows = source.descriptions()
        found: dict[str, Description] = {}
        for name, text in rows:
            with contextlib.suppress(TypeError, ValueError):  # a field without a default came from elsewhere
                found[name] = Description.from_json(text)
        return found

    def events(self) -> list[Event]:
        """Return the events in order of arrival."""
        with self._open() as source:
            return source.events()

    def series(self, name: str, start: int | None = None, stop: int | None = None,
               max_points: int | None = None) -> Series:  # fmt: skip
        """Return the points of a metric with start <= step < stop; empty for an unknown name.

        Args:
            name: of the metric.
            start: first step, or None.
            stop: step before which to stop, or None.
            max_points: at most so many numbers and so many arrays, at least 8; None for all. Of numbers
                the ends, extremes and some values that are not finite are kept; arrays are taken evenly.
        """
        with self._open() as source:
            return Moment(source).series(name, bounds(start, stop), max_points)

    def numbers(self, name: str) -> Points:
        """Return the numbers of a metric in order of arrival, without errors, costs and arrays."""
        with self._open() as source:
            return Moment(source).points(name, Field.VALUE)

    def spent(self, name: str) -> tuple[float, int]:
        """Return what the measurements of a metric took, in seconds, and how many values it has; arrays count once."""
        with self._open() as source:
            moment = Moment(source)
            seconds = moment.points(name, Field.SECONDS).value
            return float(np.nansum(seconds)), moment.count(name)

    def sampled_vectors(self, name: str, most: int) -> list[Vector]:
        """Return the arrays of a metric in order of arrival: all, or at most so many, evenly taken by step."""
        with self._open() as source:
            return [v for v in Moment(source).vectors(name, ALL_STEPS, most) if "value" in v.arrays]

    def last(self, name: str) -> Reading:
        """Return the reading of a metric that came last; a missing one for an unknown name."""
        with self._open() as source:
            moment = Moment(source)
            return moment.last_reading(name)[1] if name in moment.names else Reading.absent("not measured")

    def missing(self, name: str) -> list[tuple[int, float, str]]:
        """Return (step, time, reason) of every moment at which the metric was undefined."""
        with self._open() as source:
            moment = Moment(source)
            points = sorted_by_step(moment.points(name, Field.MISSING))
            texts = source.texts(np.unique(points.value).astype(np.int64).tolist())
        return [(int(s), float(t), texts.get(int(v), ""))
                for s, t, v in zip(points.step, points.time, points.value, strict=True)]  # fmt: skip

    def latest(self) -> dict[str, tuple[int, Reading]]:
        """Return (step, reading) of the point of every metric that came last, missing ones too."""
        with self._open() as source:
            moment = Moment(source)
            return {name: moment.last_reading(name) for name in sorted(moment.names)}

    def overview(self, name: str) -> Summaries:
        """Return the summaries of a metric's chunks (n,), as `summaries.SUMMARY`; points still hot are in none."""
        with self._open() as source:
            series = Moment(source).names.get(name, {}).get(Field.VALUE)
            return np.empty(0, SUMMARY) if series is None else Pyramid(source, series).summaries()

    def damage(self) -> list[str]:
        """Read everything and return what cannot be read, in words; empty for a run that is whole."""
        with self._open() as source:
            if isinstance(source, SqliteSource):
                source.check_structure()
            with contextlib.suppress(KeyError, TypeError, ValueError):
                source.header()
            source.descriptions()
            source.events()
            moment = Moment(source)
            for name, fields in moment.names.items():
                for field_id, series in fields.items():
                    Pyramid(source, series).check()
                    if field_id in (Field.CONTEXT, Field.DETAILS, Field.MISSING):
                        source.texts(np.unique(moment.points(name, field_id).value).astype(np.int64).tolist())
                moment.vectors(name, ALL_STEPS)
            return list(dict.fromkeys(source.damage))
