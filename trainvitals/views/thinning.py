"""Fewer points for the same picture: what is thinned before it is sent to the browser."""

from __future__ import annotations

import numpy as np
import pandas as pd
from tsdownsample import MinMaxLTTBDownsampler

from trainvitals.views.measured import Measured, key_texts

MAX_POINTS = 1000  # per trace: about one a pixel of a card
MAX_CHART_POINTS = 1250  # of all runs that a chart compares
MIN_POINTS_EACH = 200
MAX_COLUMNS = 300  # of a heatmap
MIN_COLUMNS = 50
MAX_CELLS = 20_000  # of a heatmap: about three pixels by three, however many layers there are
MAX_TICKS = 200  # marks of missing points


def thin(points: pd.DataFrame, max_points: int = MAX_POINTS, column: str = "value") -> pd.DataFrame:
    """Return at most about `max_points` rows that keep the look of the line: its extremes and its shape.

    Values that are not finite are drawn as marks and kept, at most `max_points` of them.

    >>> line = pd.DataFrame({"step": range(5000), "value": np.sin(np.arange(5000))})
    >>> len(thin(line, 100))
    100
    """
    if len(points) <= max_points:
        return points
    finite = np.isfinite(points[column].to_numpy(float))
    drawn, marks = points.loc[finite], points.loc[~finite]
    if len(drawn) > max_points:
        kept = MinMaxLTTBDownsampler().downsample(
            drawn["step"].to_numpy(np.int64), np.ascontiguousarray(drawn[column].to_numpy(float)), n_out=max_points
        )
        drawn = drawn.iloc[np.asarray(kept, dtype=np.int64)]
    return pd.concat([drawn, marks.iloc[spread(len(marks), max_points)]]).sort_values("step", kind="stable")


def points_each(num_lines: int) -> int:
    """Return how many points each of so many lines in one chart gets: a chart stays as large as one or two lines.

    >>> points_each(1), points_each(5), points_each(10)
    (1000, 250, 200)
    """
    return max(MIN_POINTS_EACH, min(MAX_POINTS, MAX_CHART_POINTS // max(num_lines, 1)))


def spread(num_rows: int, max_rows: int) -> np.ndarray:
    """Return at most `max_rows` row numbers, evenly spread, the first and the last among them.

    >>> spread(7, 3).tolist()
    [0, 3, 6]
    """
    if num_rows <= max_rows:
        return np.arange(num_rows)
    return np.unique(np.linspace(0, num_rows - 1, max_rows).round().astype(int))


def most_columns(num_keys: int) -> int:
    """Return how many steps a heatmap with so many rows shows at most.

    >>> most_columns(10), most_columns(200), most_columns(10_000)
    (300, 100, 50)
    """
    return max(MIN_COLUMNS, min(MAX_COLUMNS, MAX_CELLS // max(num_keys, 1)))


def most_points(num_keys: int) -> int:
    """Return how many measurements of a metric are read at most: of one with many keys as many as a heatmap shows.

    >>> most_points(1), most_points(200)
    (1000, 100)
    """
    return max(MIN_COLUMNS, min(MAX_POINTS, MAX_CELLS // max(num_keys, 1)))


def key_by_step(measured: Measured) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Return the keys (K,), the steps (T,), the values (K, T) and which of them were measured."""
    codes, keys = pd.factorize(key_texts(measured.points))
    steps = measured.points["step"].to_numpy(float)
    steps_all = np.unique(steps)
    kept = steps_all[spread(len(steps_all), most_columns(len(keys)))]
    shown = np.isin(steps, kept)
    rows, columns = codes[shown], np.searchsorted(kept, steps[shown])
    z, known = np.full((len(keys), len(kept)), np.nan), np.zeros((len(keys), len(kept)), bool)
    z[rows, columns], known[rows, columns] = measured.points["value"].to_numpy(float)[shown], True
    return [str(key) for key in keys], kept, z, known
