"""From records to what is stored: frames of numbers, rows of arrays, texts by number.

Runs on the writer's thread. A part of a record that cannot be stored is left out and reported; it
never takes the rest of the record with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Reading, Record
from trainvitals.store.codec import Frames, encode_arrays, round_time
from trainvitals.store.interning import Interned
from trainvitals.store.schema_sql import Field

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
MAX_DETAIL_NUMBERS = 65_536  # of a 1-D array in details: a grid or a histogram fits, eigenvectors do not
MAX_LIST = 64  # numbers of a list that JSON holds; a longer one becomes an array
MAX_DETAIL_CHARACTERS = 4096  # of a detail as JSON

Column = str | tuple[str, int]
Row = tuple[int, int, float, tuple[Any, ...]]  # seq, step, time, numbers
VectorRow = tuple[int, int, int, float, int | None, bytes]  # as the columns of `vectors`


@dataclass
class Intake:
    """A batch of records on its way into the file."""

    interned: Interned
    next_seq: int
    num_points: int = 0
    num_unstorable: int = 0
    last_step: int | None = None
    problems: list[str] = field(default_factory=list)
    vectors: list[VectorRow] = field(default_factory=list)
    _rows: dict[tuple[Column, ...], list[Row]] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Take one record in."""
        step, time = record.step, record.time
        try:
            if type(step) is not int or not _LOWEST <= step <= _HIGHEST:
                step = int(np.int64(step))
            time = float(time)
        except (TypeError, ValueError, OverflowError) as error:
            self._reject(f"step {record.step!r}", error, len(record.scalars) + len(record.readings))
            return
        if record.readings:
            columns, numbers = self._columns_with_readings(record, step, time)
        else:
            columns, numbers = tuple(record.scalars), tuple(record.scalars.values())
            self.num_points += len(columns)
        if columns:
            rows = self._rows.get(columns)
            if rows is None:
                rows = self._rows[columns] = []
            rows.append((self.next_seq, step, time, numbers))
        self.next_seq += 1
        self.last_step = step

    def frames(self) -> Iterator[tuple[int, Frames]]:
        """Return (layout id, frames) of all that was taken in, one block a layout."""
        for columns, rows in self._rows.items():
            try:
                yield self.interned.layout(columns), _frames(rows)
            except (TypeError, ValueError, OverflowError):
                yield from self._one_by_one(columns, rows)

    def _one_by_one(self, columns: tuple[Column, ...], rows: list[Row]) -> Iterator[tuple[int, Frames]]:
        for seq, step, time, numbers in rows:
            good: dict[Column, float] = {}
            for column, number in zip(columns, numbers, strict=True):
                try:
                    if isinstance(column, str | tuple):
                        good[column] = float(number)
                    else:
                        good[str(column)] = float(number)
                except (TypeError, ValueError, OverflowError) as error:
                    self.num_points -= 1
                    self._reject(f"{column!r} at step {step}", error)
            if good:
                yield self.interned.layout(tuple(good)), _frames([(seq, step, time, tuple(good.values()))])

    def _reject(self, what: str, error: Exception, num_points: int = 1) -> None:
        self.num_unstorable += num_points
        self.problems.append(f"{what} could not be stored: {type(error).__name__}: {error}")

    def _columns_with_readings(self, record: Record, step: int, time: float) -> tuple[tuple[Column, ...], tuple]:
        cells: dict[Column, Any] = {k: v for k, v in record.scalars.items() if k not in record.readings}
        self.num_points += len(cells)
        for name, reading in record.readings.items():
            try:
                cells.update(self._cells(name, reading, step, time))
                self.num_points += 1
            except (TypeError, ValueError, OverflowError) as error:
                self._reject(f"{name!r} at step {step}", error)
                text = f"could not be stored: {error}"
                cells[name, Field.MISSING] = self.interned.text(text)
        return tuple(cells), tuple(cells.values())

    def _cells(self, name: str, reading: Reading, step: int, time: float) -> dict[Column, float]:
        """Return the numbers of one reading by column; its arrays become a row of `vectors`."""
        cells: dict[Column, float] = {}
        arrays: dict[str, NDArray] = {}
        for part, number, column in (("value", reading.value, Field.VALUE), ("error", reading.error, Field.ERROR)):
            if number is None:
                continue
            array = np.asarray(number)
            if array.ndim == 0:
                cells[name, column] = float(array)
            else:
                arrays[part] = array
        small, large = split_details(reading.details)
        arrays.update({f"details.{key}": array for key, array in large.items()})
        cells.update(self._costs(name, reading, small, step))
        if arrays:
            keys = self.interned.text(json.dumps([str(k) for k in reading.keys])) if reading.keys else None
            series = self.interned.series(name)
            self.vectors.append((series, self.next_seq, step, float(_rounded(time)), keys, encode_arrays(arrays)))
        elif reading.keys:
            small = {**small, "keys": [str(k) for k in reading.keys]}
        return cells

    def _costs(self, name: str, reading: Reading, small: Mapping[str, Any], step: int) -> dict[Column, float]:
        cells: dict[Column, float] = {}
        if reading.missing is not None:
            cells[name, Field.MISSING] = self.interned.text(str(reading.missing))
        if reading.converged is not None:
            cells[name, Field.CONVERGED] = float(bool(reading.converged))
        if reading.hvps:
            cells[name, Field.HVPS] = float(reading.hvps)
        if reading.seconds:
            cells[name, Field.SECONDS] = float(reading.seconds)
        if reading.definition or reading.provenance:
            cells[name, Field.CONTEXT] = self._context(reading, step)
        if small:
            cells[name, Field.DETAILS] = self.interned.text(json.dumps(small, sort_keys=True))
        return cells

    def _context(self, reading: Reading, step: int) -> int:
        """Return the number of the text of definition and provenance: nearly always one of the last step's."""
        context = {"definition": reading.definition, "provenance": _provenance(reading, step)}
        try:
            parts = ((key, value, type(value)) for key, value in context["provenance"].items())
            known = (reading.definition, *parts)
            if known in self.interned.contexts:
                return self.interned.contexts[known]
        except TypeError:  # a list or a mapping in it
            return self.interned.text(json.dumps(context, sort_keys=True))
        return self.interned.context(known, json.dumps(context, sort_keys=True))


def _rounded(time: float) -> float:
    return float(round_time(np.array([time]))[0])


def _frames(rows: list[Row]) -> Frames:
    seq, step, time, numbers = zip(*rows, strict=True)
    times = round_time(np.array(time, np.float64))
    values = np.array(numbers, np.float64)
    if np.isnan(values).any() and any(None in row for row in numbers):
        raise TypeError("expected numbers, got None")  # NumPy would make a NaN of it
    return Frames(np.array(seq, np.int64), np.array(step, np.int64), times, values)


def _provenance(reading: Reading, step: int) -> dict[str, Any]:
    """Return the provenance without its step, which the frame has: so it is the same text at every step."""
    plain = {key: _plain(value) for key, value in reading.provenance.items()}
    plain = {key: value for key, value in plain.items() if value is not None}
    if plain.get("step") == step:
        plain["step"] = "record"
    return plain


def split_details(details: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Return the small details that JSON holds and the 1-D arrays; what is neither is left out."""
    small: dict[str, Any] = {}
    large: dict[str, NDArray] = {}
    for key, value in details.items():
        array = value if isinstance(value, np.ndarray) else _array_of(value)
        if isinstance(value, list | tuple) and len(value) > MAX_LIST:
            array = _numbers(value)
        if array is not None and array.ndim == 1 and array.dtype.kind in "fiub" and array.size <= MAX_DETAIL_NUMBERS:
            large[str(key)] = array
            continue
        plain = _plain(value)
        if plain is not None and len(json.dumps(plain)) <= MAX_DETAIL_CHARACTERS:
            small[str(key)] = plain
    return small, large


def _array_of(value: Any) -> NDArray | None:
    """Return a tensor in one dimension as an array, known by what it can do: torch is not imported here."""
    if getattr(value, "ndim", 0) != 1 or not hasattr(value, "detach"):
        return None
    tensor = value.detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def _numbers(values: list | tuple) -> NDArray | None:
    if all(isinstance(v, int | float | np.number) for v in values):
        return np.asarray(values)
    return None


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, or None if it is not small and plain."""
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, float | np.floating | np.integer | np.bool_):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "fiub":
        return value.item()
    if isinstance(value, list | tuple) and len(value) <= MAX_LIST:
        parts = [_plain(part) for part in value]
        return None if any(part is None for part in parts) else parts
    if isinstance(value, Mapping) and len(value) <= MAX_LIST:
        return {str(key): part for key, item in value.items() if (part := _plain(item)) is not None}
    return None


def is_array(number: Any) -> bool:
    """Tell an array of one or more dimensions from a plain number, without copying it."""
    return bool(getattr(number, "ndim", 0)) or isinstance(number, list | tuple)


def num_array_bytes(reading: Reading) -> int:
    """Return about how much memory the arrays of a reading take; 0 for a plain number."""
    parts = (reading.value, reading.error, *reading.details.values())
    return sum(getattr(part, "nbytes", 64 * len(part)) for part in parts if is_array(part) and hasattr(part, "__len__"))
