"""What is known of many points without reading them: a pyramid of summaries above the chunks.

A summary holds the ends, the extremes of the finite values and the first value that is not finite,
each as a whole point with its step and time, so a chart of a long series is drawn from summaries
alone. Summaries of eight rows merge into one of the next level without a look at any point.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainvitals.store.codec import DamagedError, Points, seal, unseal

POINT = np.dtype([("seq", "<i8"), ("step", "<i8"), ("time", "<f8"), ("value", "<f8")])
SUMMARY = np.dtype([
    ("series", "<i8"), ("level", "<i8"), ("first_seq", "<i8"), ("last_seq", "<i8"),
    ("num_points", "<i8"), ("num_nonfinite", "<i8"), ("min_step", "<i8"), ("max_step", "<i8"),
    ("first", POINT), ("last", POINT),
    ("low", POINT), ("high", POINT),  # of finite values; meaningless without any
    ("odd", POINT),  # the first value that is not finite; meaningless without any
])  # fmt: skip

Summaries = NDArray[np.void]  # (n,) of SUMMARY


def summarise(points: Points, series: int = 0) -> Summaries:
    """Return the summary (1,) of a chunk's points; there must be at least one."""
    whole = np.zeros(1, SUMMARY)
    finite = np.isfinite(points.value)
    odd = np.flatnonzero(~finite)
    whole["series"], whole["num_points"], whole["num_nonfinite"] = series, len(points), len(odd)
    whole["first_seq"], whole["last_seq"] = points.seq[0], points.seq[-1]
    whole["min_step"], whole["max_step"] = points.step.min(), points.step.max()
    _put(whole, "first", points, 0)
    _put(whole, "last", points, len(points) - 1)
    if len(odd) < len(points):
        _put(whole, "low", points, int(np.argmin(np.where(finite, points.value, np.inf))))
        _put(whole, "high", points, int(np.argmax(np.where(finite, points.value, -np.inf))))
    if len(odd):
        _put(whole, "odd", points, int(odd[0]))
    return whole


def _put(summary: Summaries, name: str, points: Points, index: int) -> None:
    summary[name] = (points.seq[index], points.step[index], points.time[index], points.value[index])


def merge(parts: Summaries) -> Summaries:
    """Return the summary (1,) of consecutive summaries (n,) of one level, n >= 1, as one row of the next."""
    whole = parts[:1].copy()
    whole["level"] += 1
    whole["num_points"], whole["num_nonfinite"] = parts["num_points"].sum(), parts["num_nonfinite"].sum()
    whole["last_seq"], whole["last"] = parts["last_seq"][-1], parts["last"][-1]
    whole["min_step"], whole["max_step"] = parts["min_step"].min(), parts["max_step"].max()
    finite = parts[parts["num_nonfinite"] < parts["num_points"]]
    if len(finite):
        whole["low"] = finite["low"][np.argmin(finite["low"]["value"])]
        whole["high"] = finite["high"][np.argmax(finite["high"]["value"])]
    odd = parts[parts["num_nonfinite"] > 0]
    if len(odd):
        whole["odd"] = odd["odd"][0]
    return whole


def encode_summary(summary: Summaries, values: NDArray[np.float64] | None = None) -> bytes:
    """Return a summary (1,) as a sealed blob; behind it, for a chunk, a bit a value that is not finite, if any is."""
    mask = b""
    if values is not None and summary["num_nonfinite"][0]:
        mask = np.packbits(~np.isfinite(values)).tobytes()
    return seal(summary.tobytes() + mask)


def decode_summaries(blobs: Sequence[bytes]) -> Summaries:
    """Return the summaries (n,) of n blobs.

    Raises:
        DamagedError: if one of them is not what was written.
    """
    records = [unseal(blob)[: SUMMARY.itemsize] for blob in blobs]
    if any(len(record) != SUMMARY.itemsize for record in records):
        raise DamagedError("a summary of points is too short")
    return np.frombuffer(b"".join(records), SUMMARY)


def nonfinite_mask(blob: bytes) -> NDArray[np.bool_]:
    """Return which values (n,) of a chunk are not finite, from its summary's blob."""
    data = unseal(blob)
    num_points = int(np.frombuffer(data[: SUMMARY.itemsize], SUMMARY)["num_points"][0])
    mask = np.frombuffer(data[SUMMARY.itemsize :], np.uint8)
    return np.unpackbits(mask, count=num_points).astype(bool) if len(mask) else np.zeros(num_points, bool)


def points_of(summaries: Summaries, name: str) -> Points:
    """Return one of the points of each summary: "first", "last", "low", "high" or "odd"; arrays (n,)."""
    part = summaries[name]
    return Points(*(np.ascontiguousarray(part[column]) for column in ("seq", "step", "time", "value")))
