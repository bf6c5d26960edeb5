"""Bytes and numbers: frames, chunks and vectors, each lossless bit for bit.

Letters: n points or frames, k series. Integers are kept as differences in the fewest bytes, floats as
float32 where that loses nothing, with their bytes transposed before compression: the exponents of a
series are alike, their mantissas are not. Everything is little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_ARITHMETIC, _DELTAS, _DELTAS_ZLIB = 0, 1, 2
_CONSTANT, _RAW, _RAW_ZLIB = 0, 1, 2
_MICROSECONDS, _SECONDS = 0, 1
_INTS = struct.Struct("<BBIqq")  # kind, bytes a difference, n, first, difference
_FLOATS = struct.Struct("<BBId")  # kind, bytes a value, n, the value if all are the same
_ROWS = struct.Struct("<BI")  # bytes a value, k
_LENGTH = struct.Struct("<I")
_SERIES = struct.Struct("<q")
_ZLIB_LEVEL = 1  # level 6 saves 1 % on loss curves and takes four times as long


@dataclass(frozen=True)
class Points:
    """Points of one series in order of arrival; four arrays (n,)."""

    seq: Ints  # number of the record in the run
    step: Ints
    time: Floats  # seconds since the epoch
    value: Floats

    def __len__(self) -> int:
        return len(self.seq)

    def __getitem__(self, index: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Points:
        return Points(self.seq[index], self.step[index], self.time[index], self.value[index])

    @classmethod
    def join(cls, parts: list[Points]) -> Points:
        """Return the points of all parts, in the order of `seq`."""
        if not parts:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))
        whole = cls(
            np.concatenate([p.seq for p in parts]),
            np.concatenate([p.step for p in parts]),
            np.concatenate([p.time for p in parts]),
            np.concatenate([p.value for p in parts]),
        )
        if np.all(whole.seq[1:] >= whole.seq[:-1]):
            return whole
        return whole[np.argsort(whole.seq, kind="stable")]


@dataclass(frozen=True)
class Frames:
    """n records that hold the same k series."""

    seq: Ints  # (n,)
    step: Ints  # (n,)
    time: Floats  # (n,)
    values: Floats  # (n, k)

    def __len__(self) -> int:
        return len(self.seq)

    def column(self, index: int) -> Points:
        """Return the points of the series in that column."""
        return Points(self.seq, self.step, self.time, self.values[:, index])


def round_time(seconds: Floats) -> Floats:
    """Return times rounded to the microsecond, as the store keeps them."""
    return np.rint(seconds * 1e6) / 1e6


# ---- columns


def encode_integers(values: Ints) -> bytes:
    """Return int64 values (n,) as bytes: 22 bytes in all when they are equally spaced."""
    values = np.ascontiguousarray(values, np.int64)
    n = len(values)
    first = int(values[0]) if n else 0
    deltas = np.diff(values)  # wraps around on overflow, and so does the sum that undoes it
    step = int(deltas[0]) if n > 1 else 0
    if n <= 1 or (deltas == step).all():
        return _INTS.pack(_ARITHMETIC, 0, n, first, step)
    zigzag = ((deltas << 1) ^ (deltas >> 63)).view(np.uint64)
    width = next(w for w in (1, 2, 4, 8) if int(zigzag.max()) < 1 << (8 * w))
    raw = _transpose(zigzag.astype(f"<u{width}"))
    packed = zlib.compress(raw, _ZLIB_LEVEL)
    if len(packed) < len(raw):
        return _INTS.pack(_DELTAS_ZLIB, width, n, first, 0) + packed
    return _INTS.pack(_DELTAS, width, n, first, 0) + raw


def decode_integers(data: bytes) -> Ints:
    """Undo `encode_integers`."""
    kind, width, n, first, step = _INTS.unpack_from(data)
    if kind == _ARITHMETIC:
        # int64 all through, so that the sum wraps around as the differences did
        return np.int64(first) + np.arange(n, dtype=np.int64) * np.int64(step) if n else np.empty(0, np.int64)
    raw = data[_INTS.size :]
    if kind == _DELTAS_ZLIB:
        raw = zlib.decompress(raw)
    zigzag = _untranspose(raw, np.dtype(f"<u{width}")).astype(np.uint64)
    deltas = (zigzag >> np.uint64(1)).view(np.int64) ^ -(zigzag & np.uint64(1)).view(np.int64)
    return np.cumsum(np.concatenate([np.array([first], np.int64), deltas]), dtype=np.int64)


def encode_floats(values: Floats) -> bytes:
    """Return float64 values (n,) as bytes; NaN payloads, signed zeros and infinities are kept."""
    values = np.ascontiguousarray(values, "<f8")
    n = len(values)
    bits = values.view(np.uint64)
    if n and (bits == bits[0]).all():
        return _FLOATS.pack(_CONSTANT, 8, n, 0.0)[: _FLOATS.size - 8] + values[:1].tobytes()
    narrow = narrowest(values)
    raw = _transpose(narrow)
    packed = zlib.compress(raw, _ZLIB_LEVEL)
    if len(packed) < len(raw):
        return _FLOATS.pack(_RAW_ZLIB, narrow.itemsize, n, 0.0) + packed
    return _FLOATS.pack(_RAW, narrow.itemsize, n, 0.0) + raw


def decode_floats(data: bytes) -> Floats:
    """Undo `encode_floats`."""
    kind, width, n, _ = _FLOATS.unpack_from(data)
    if kind == _CONSTANT:
        return np.repeat(np.frombuffer(data, "<f8", 1, _FLOATS.size - 8), n)
    raw = data[_FLOATS.size :]
    if kind == _RAW_ZLIB:
        raw = zlib.decompress(raw)
    return widen(_untranspose(raw, np.dtype(f"<f{width}")))


def narrowest(values: Floats) -> NDArray[np.floating]:
    """Return the values as float32 if that keeps every bit of them, else as they are."""
    with np.errstate(all="ignore"):
        narrow = values.astype("<f4")
        same = np.array_equal(narrow.astype("<f8").view(np.uint64), np.ascontiguousarray(values).view(np.uint64))
    return narrow if same else values


def widen(values: NDArray[np.floating]) -> Floats:
    """Return float32 or float64 values as float64."""
    with np.errstate(all="ignore"):
        return values.astype(np.float64)


def encode_times(seconds: Floats) -> bytes:
    """Return times (n,) as bytes: whole microseconds as differences, anything else as floats."""
    with np.errstate(all="ignore"):
        micro = np.rint(seconds * 1e6)
        exact = bool(np.all(np.abs(micro) < 2**53)) and np.array_equal(
            (micro / 1e6).view(np.uint64), np.ascontiguousarray(seconds, np.float64).view(np.uint64)
        )
    if exact and not np.signbit(micro[micro == 0]).any():
        return bytes([_MICROSECONDS]) + encode_integers(micro.astype(np.int64))
    return bytes([_SECONDS]) + encode_floats(seconds)


def decode_times(data: bytes) -> Floats:
    """Undo `encode_times`."""
    if data[0] == _MICROSECONDS:
        return decode_integers(data[1:]) / 1e6
    return decode_floats(data[1:])


def _transpose(values: NDArray[np.generic]) -> bytes:
    """Return all first bytes, then all second bytes, and so on."""
    return values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _untranspose(raw: bytes, dtype: np.dtype) -> NDArray:
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(-1)


# ---- frames and chunks


class DamagedError(ValueError):
    """A blob is not what was written: its checksum differs."""


def row_checksum(*values: float | str | bytes | None) -> int:
    """Return the checksum of a row's columns as SQLite gives them back: a float's sign of zero does not count.

    >>> row_checksum(1, "a", -0.0, None) == row_checksum(1, "a", 0.0, None) != row_checksum(1, "b", 0.0, None)
    True
    """
    plain = [value + 0.0 if isinstance(value, float) else str(value) if isinstance(value, str) else value
             for value in values]  # fmt: skip
    return zlib.crc32(repr(plain).encode())


def seal(data: bytes) -> bytes:
    """Return the data behind its checksum."""
    return _LENGTH.pack(zlib.crc32(data)) + data


def unseal(data: bytes) -> bytes:
    """Check and remove the checksum.

    Raises:
        DamagedError: if a bit of the blob has changed.
    """
    body = data[_LENGTH.size :]
    if len(data) < _LENGTH.size or _LENGTH.unpack_from(data)[0] != zlib.crc32(body):
        raise DamagedError("a block of points does not match its checksum")
    return body


def _pack(*parts: bytes) -> bytes:
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def _unpack(data: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        parts.append(data[at : at + length])
        at += length
    return parts


def encode_frames(frames: Frames) -> bytes:
    """Return frames as one block: their axis, then a float32 or float64 row a frame, not compressed."""
    values = narrowest(np.ascontiguousarray(frames.values, "<f8"))
    head = _ROWS.pack(values.itemsize, values.shape[1])
    return seal(_pack(encode_axis(frames.seq, frames.step, frames.time), head, values.tobytes()))


def decode_frames(data: bytes) -> Frames:
    """Undo `encode_frames`. Raises `DamagedError` if a bit has changed."""
    axis, head, raw = _unpack(unseal(data))
    seq, step, time = decode_axis(axis)
    width, num_series = _ROWS.unpack(head)
    values = widen(np.frombuffer(raw, f"<f{width}"))
    return Frames(seq, step, time, values.reshape(len(seq), num_series))


def encode_axis(seq: Ints, step: Ints, time: Floats) -> bytes:
    """Return where points lie as bytes: record numbers, steps and times."""
    return _pack(encode_integers(seq), encode_integers(step), encode_times(time))


def decode_axis(data: bytes) -> tuple[Ints, Ints, Floats]:
    """Undo `encode_axis`."""
    seq, step, time = _unpack(data)
    return decode_integers(seq), decode_integers(step), decode_times(time)


def encode_chunk(axis: bytes, value: Floats, series: int = 0) -> bytes:
    """Return a chunk's body from its encoded axis (shared by the series of a layout), its values and its series."""
    return seal(_pack(axis, encode_floats(value), _SERIES.pack(series)))


def decode_chunk(data: bytes) -> Points:
    """Undo `encode_chunk`. Raises `DamagedError` if a bit has changed."""
    axis, value, *_ = _unpack(unseal(data))
    return Points(*decode_axis(axis), decode_floats(value))


def series_of_chunk(data: bytes) -> int:
    """Return the series that a chunk's body belongs to; 0 if it does not say. Raises `DamagedError` likewise."""
    parts = _unpack(unseal(data))
    return _SERIES.unpack(parts[2])[0] if len(parts) > 2 else 0


# ---- vectors


def encode_array(array: NDArray) -> bytes:
    """Return an array of numbers or booleans of any shape as bytes, with its dtype.

    Raises:
        TypeError: if the array holds anything else.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"expected an array of floats, integers or booleans, got dtype {array.dtype} in encode_array")
    shape = array.shape
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    raw = _transpose(array.reshape(-1))
    packed = zlib.compress(raw, _ZLIB_LEVEL)
    is_packed = len(packed) < len(raw)
    head = struct.pack(f"<3sBB{len(shape)}Q", array.dtype.str[-2:].encode().ljust(3), is_packed, len(shape), *shape)
    return head + (packed if is_packed else raw)


def decode_array(data: bytes) -> NDArray:
    """Undo `encode_array`."""
    kind, is_packed, ndim = struct.unpack_from("<3sBB", data)
    shape = struct.unpack_from(f"<{ndim}Q", data, 5)
    raw = data[5 + 8 * ndim :]
    dtype = np.dtype("<" + kind.decode().strip())
    return _untranspose(zlib.decompress(raw) if is_packed else raw, dtype).reshape(shape)


def encode_arrays(arrays: Mapping[str, NDArray]) -> bytes:
    """Return named arrays as one blob."""
    return seal(_pack(*(part for name, array in arrays.items() for part in (name.encode(), encode_array(array)))))


def decode_arrays(data: bytes) -> dict[str, NDArray]:
    """Undo `encode_arrays`. Raises `DamagedError` if a bit has changed."""
    parts = _unpack(unseal(data))
    return {name.decode(): decode_array(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}
