"""Protocol-buffer messages without their schema: field numbers and raw values.

The wire format (protobuf.dev, "Encoding"): a key of number · 8 + type, then a varint (0), eight bytes
(1), a length and bytes (2), or four bytes (5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

Value = int | bytes


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield (number, value) of every field: integers for varints, bytes for everything else.

    Raises:
        ValueError: if the bytes are no message.

    >>> list(fields(bytes([8, 150, 1, 18, 2, 104, 105])))
    [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(kind, -1)
        if length < 0 or at + length > len(data):
            raise ValueError(f"expected a protocol-buffer message, got a field of kind {kind} that does not fit")
        yield number, data[at : at + length]
        at += length


def as_text(value: Value) -> str:
    """Return a field of text; empty for a field of another kind."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else ""


def as_double(value: Value) -> float:
    """Return a field of eight bytes as a number."""
    return struct.unpack("<d", value)[0] if isinstance(value, bytes) and len(value) == 8 else float("nan")


def signed(value: Value) -> int:
    """Return a varint as int64 has it.

    >>> signed(2**64 - 1)
    -1
    """
    number = value if isinstance(value, int) else 0
    return number - 2**64 if number >= 2**63 else number


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise ValueError("expected a protocol-buffer message, got a number that does not end")
