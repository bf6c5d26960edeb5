"""Where series come from: a run file, or arrays in memory. What is read is in order of arrival, as it was stored.

Legend: n points, K keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Event
from trainvitals.store.reader import RunReader
from trainvitals.verdicts.series import Floats, Ints

MOST_VECTORS = 512  # of a metric with a number per key: each is read from a row of its own


@dataclass(frozen=True)
class Raw:
    """Points in order of arrival: step (n,), value (n,), or (n, K) with keys. NaN and Inf as they were measured.

    `absent` (n, K) tells where a key had no value at all, which `value` has as NaN too.
    """

    step: Ints
    value: Floats
    keys: tuple[str, ...] = ()
    absent: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))

    def at_most(self, step: int | None) -> Raw:
        """Return the points at this step and before; all for None."""
        if step is None:
            return self
        seen = self.step <= step
        absent = self.absent[seen] if len(self.absent) else self.absent
        return Raw(self.step[seen], self.value[seen], self.keys, absent)


class Source(Protocol):
    """What `RunFacts` reads from."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the run recorded of itself."""
        ...

    def names(self) -> frozenset[str]:
        """Return the names of all metrics."""
        ...

    def numbers(self, name: str) -> Raw:
        """Return the points of a metric with one number a step; none for an unknown name."""
        ...

    def vectors(self, name: str) -> Raw:
        """Return the points of a metric with a number per key; thinned where there are many."""
        ...

    def absences(self, name: str) -> tuple[tuple[int, str], ...]:
        """Return (step, reason) of every moment at which the metric was undefined."""
        ...

    def details(self, name: str) -> Mapping[str, Any]:
        """Return the details of the newest reading."""
        ...

    def events(self) -> tuple[Event, ...]:
        """Return what happened to the run."""
        ...


@dataclass(frozen=True)
class MemorySource:
    """Series held in memory, by metric name: (step, value) or (step, value (n, K), keys).

    >>> source = MemorySource({"loss.train": ([0, 10], [2.3, 1.9])})
    >>> source.numbers("loss.train").value.tolist()
    [2.3, 1.9]
    """

    series: Mapping[str, tuple]
    meta: Mapping[str, Any] = field(default_factory=dict)
    undefined: Mapping[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)
    last_details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    happened: tuple[Event, ...] = ()

    def names(self) -> frozenset[str]:
        """Return the names of all metrics."""
        return frozenset(self.series) | frozenset(self.undefined)

    def numbers(self, name: str) -> Raw:
        """Return the points of a metric with one number a step."""
        return self._raw(name, 1)

    def vectors(self, name: str) -> Raw:
        """Return the points of a metric with a number per key."""
        return self._raw(name, 2)

    def absences(self, name: str) -> tuple[tuple[int, str], ...]:
        """Return (step, reason) of every moment at which the metric was undefined."""
        return tuple(self.undefined.get(name, ()))

    def details(self, name: str) -> Mapping[str, Any]:
        """Return the details of the newest reading."""
        return self.last_details.get(name, {})

    def events(self) -> tuple[Event, ...]:
        """Return what happened to the run."""
        return self.happened

    def _raw(self, name: str, ndim: int) -> Raw:
        step, value, *keys = self.series.get(name, ((), ()))
        value = np.asarray(value, np.float64)
        if value.ndim != ndim:
            return Raw(np.empty(0, np.int64), np.empty((0, 0) if ndim == 2 else 0))
        keys_ = tuple(keys[0]) if keys else ()
        return Raw(np.asarray(step, np.int64), value, keys_, np.zeros(value.shape if ndim == 2 else (0, 0), bool))


class StoreSource:
    """Series of a run file, live or finished. Each call reads what is in the file at that moment."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self.meta: Mapping[str, Any] = reader.header().meta

    def names(self) -> frozenset[str]:
        """Return the names of all metrics."""
        return frozenset(self._reader.names())

    def numbers(self, name: str) -> Raw:
        """Return the points of a metric with one number a step."""
        points = self._reader.numbers(name)
        return Raw(points.step, points.value)

    def vectors(self, name: str) -> Raw:
        """Return the points of a metric with a number per key: at most `MOST_VECTORS`, spread over the run."""
        found = [v for v in self._reader.sampled_vectors(name, MOST_VECTORS) if v.arrays["value"].ndim == 1]
        layouts = dict.fromkeys(v.keys for v in found)  # few: most arrays of a metric have the same keys
        keys = tuple(dict.fromkeys(key for layout in layouts for key in layout))
        column = {key: i for i, key in enumerate(keys)}
        columns = {layout: np.array([column[key] for key in layout], np.intp) for layout in layouts}
        value, absent = np.full((len(found), len(keys)), np.nan), np.ones((len(found), len(keys)), bool)
        for row, v in enumerate(found):
            if len(v.keys) == len(v.arrays["value"]):
                value[row, columns[v.keys]], absent[row, columns[v.keys]] = v.arrays["value"], False
        return Raw(np.array([v.step for v in found], np.int64), value, keys, absent)

    def absences(self, name: str) -> tuple[tuple[int, str], ...]:
        """Return (step, reason) of every moment at which the metric was undefined."""
        return tuple((step, reason) for step, _, reason in self._reader.missing(name))

    def details(self, name: str) -> Mapping[str, Any]:
        """Return the details of the newest reading."""
        return self._reader.last(name).details

    def events(self) -> tuple[Event, ...]:
        """Return what happened to the run."""
        return tuple(self._reader.events())
