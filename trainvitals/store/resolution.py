"""A long series with few points: exact at the ends, spikes kept.

A series is a row of *cells*: points that stand alone, and summaries of many. Neighbouring cells share
a *bucket*, and of each bucket the smallest and the largest finite value and the first value that is
not finite are kept. All are points that were measured, with their own steps: nothing is averaged, and
no extreme of a bucket is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trainvitals.store.codec import Floats, Ints, Points
from trainvitals.store.summaries import Summaries, points_of

MIN_POINTS = 8  # the two ends, and two buckets of three


def sorted_by_step(points: Points) -> Points:
    """Return the points by step; those of one step stay in order of arrival."""
    if np.all(points.step[1:] >= points.step[:-1]):
        return points
    return points[np.argsort(points.step, kind="stable")]


@dataclass(frozen=True)
class _Candidates:
    """One candidate a cell for a place in its bucket; all (n,). `score` is infinite where a cell has none."""

    step: Ints  # where the cell begins: decides its bucket
    points: Points
    score: Floats  # the smallest of a bucket is kept


def thin(summaries: Summaries, points: Points, max_points: int) -> Points:
    """Return at most `max_points` of the points that cells stand for, by step.

    Args:
        summaries: cells of many points (n,).
        points: cells of one point (m,); they hold the first and the last of all.
        max_points: at least 8.
    """
    points = sorted_by_step(points)
    if not len(summaries) and len(points) <= max_points:
        return points
    finite = np.isfinite(points.value)
    num_odd = int(summaries["num_nonfinite"].sum()) + int((~finite).sum())
    num_buckets = (max_points - 2) // (3 if num_odd else 2)
    has_finite = summaries["num_nonfinite"] < summaries["num_points"]
    kinds = [
        _candidates(summaries, "low", has_finite, 1.0, points, finite),
        _candidates(summaries, "high", has_finite, -1.0, points, finite),
    ]
    if num_odd:
        kinds.append(_candidates(summaries, "odd", summaries["num_nonfinite"] > 0, 0.0, points, ~finite))
    chosen = [best for kind in kinds for best in _best(kind, num_buckets)]
    whole = Points.join([*chosen, points[:1], points[-1:]])
    _, first = np.unique(whole.seq, return_index=True)  # a low may be a high or an end too
    return sorted_by_step(whole[first])


def _candidates(summaries: Summaries, name: str, has: np.ndarray, sign: float,
                points: Points, fits: np.ndarray) -> _Candidates:  # fmt: skip
    """Return the cells' points of one kind; `sign` 1 wants the smallest, -1 the largest, 0 the first."""
    of_many = points_of(summaries, name)
    values = np.concatenate([of_many.value, points.value])
    step = np.concatenate([summaries["min_step"], points.step])
    has_one = np.concatenate([has, fits])
    score = np.where(has_one, sign * np.where(has_one, values, 0.0) if sign else 0.0, np.inf)
    whole = Points(
        np.concatenate([of_many.seq, points.seq]), np.concatenate([of_many.step, points.step]),
        np.concatenate([of_many.time, points.time]), values,
    )  # fmt: skip
    if np.all(step[1:] >= step[:-1]):
        return _Candidates(step, whole, score)
    order = np.argsort(step, kind="stable")
    return _Candidates(step[order], whole[order], score[order])


def _best(cells: _Candidates, num_buckets: int) -> list[Points]:
    """Return the candidate with the smallest score of every bucket that has one."""
    low, high = float(cells.step[0]), float(cells.step[-1])
    at = (cells.step.astype(np.float64) - low) / max(high - low, 1.0) * num_buckets
    edges = np.searchsorted(np.minimum(at.astype(np.int64), num_buckets - 1), np.arange(num_buckets + 1))
    found = []
    for start, stop in pairwise(edges):
        if stop > start and cells.score[best := start + int(np.argmin(cells.score[start:stop]))] < np.inf:
            found.append(best)
    return [cells.points[np.array(found, np.intp)]]
