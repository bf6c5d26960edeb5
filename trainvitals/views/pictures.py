"""Kept samples as pictures: PNG files in the address of an image, made from 8-bit levels.

Legend: H and W pixels, C channels (1 grey or 3 colours).
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_MIN_SIDE = 48  # pixels: smaller pictures are enlarged, pixel by pixel, so that they stay sharp
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2  # colour types of the PNG specification, section 11.2.2


def png(levels: NDArray) -> bytes:
    """Return (H, W, C) 8-bit levels as a PNG file.

    Raises:
        ValueError: for any other shape or dtype.

    >>> png(np.zeros((2, 3, 1), np.uint8))[1:4]
    b'PNG'
    """
    if levels.ndim != 3 or levels.shape[2] not in (1, 3) or levels.dtype != np.uint8 or not levels.size:
        raise ValueError(
            f"expected (H, W, 1) or (H, W, 3) of uint8, got {levels.shape} of {levels.dtype} in png; "
            "convert the levels first"
        )
    height, width, channels = levels.shape
    kind = _GREY if channels == 1 else _RGB
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), levels.reshape(height, -1)], 1)  # filter 0 before each
    body = zlib.compress(lines.tobytes(), 6)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def picture(levels: NDArray) -> str:
    """Return (H, W, C) 8-bit levels as the address of a picture at least 48 pixels high."""
    times = max(1, -(-_MIN_SIDE // max(levels.shape[:2])))
    enlarged = levels.repeat(times, 0).repeat(times, 1)
    return "data:image/png;base64," + base64.b64encode(png(enlarged)).decode()
