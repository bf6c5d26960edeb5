"""What conditions read: one number at steps, or one number per layer at steps. Finite numbers only.

Legend: n points, K layers or classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_POINTS = 4096  # of a series after thinning: a location within 1/2048 of the run is exact enough
MOST_ROWS = 1024  # of a metric with a number per key


@dataclass(frozen=True, eq=False)
class Series:
    """Finite values (n,) at increasing steps (n,), of one metric, or of one key of one."""

    name: str
    step: Ints
    value: Floats
    key: str = ""

    def __len__(self) -> int:
        return len(self.step)

    def __bool__(self) -> bool:
        return len(self.step) > 0

    @property
    def last(self) -> float:
        """The newest value."""
        return float(self.value[-1])

    def since(self, step: int | None) -> Series:
        """Return the points at this step and later; all of them for None."""
        return self if step is None else self._where(self.step >= step)

    def until(self, step: int) -> Series:
        """Return the points at this step and before."""
        return self._where(self.step <= step)

    def at(self, steps: Ints) -> Floats:
        """Return the newest value at or before each of `steps` (m,); NaN before the first point."""
        if not len(self):
            return np.full(len(steps), np.nan)
        index = np.searchsorted(self.step, steps, side="right") - 1
        return np.where(index < 0, np.nan, self.value[np.maximum(index, 0)])

    def with_values(self, value: Floats) -> Series:
        """Return other values at the same steps, under the same name."""
        return Series(self.name, self.step, value, self.key)

    def _where(self, chosen: NDArray[np.bool_]) -> Series:
        return Series(self.name, self.step[chosen], self.value[chosen], self.key)


@dataclass(frozen=True, eq=False)
class Layers:
    """Values (n, K) at increasing steps (n,), one column a key; NaN where a key has none."""

    name: str
    step: Ints
    value: Floats
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.step)

    def __bool__(self) -> bool:
        return len(self.step) > 0 and len(self.keys) > 0

    def column(self, key: str) -> Series:
        """Return the finite points of one key."""
        value = self.value[:, self.keys.index(key)]
        chosen = np.isfinite(value)
        return Series(self.name, self.step[chosen], value[chosen], key)

    def median(self) -> Series:
        """Return the median over the keys at each step that has one."""
        return self._over_keys(np.nanmedian)

    def largest(self) -> Series:
        """Return the largest over the keys at each step that has one."""
        return self._over_keys(np.nanmax)

    def _over_keys(self, function: Callable[..., Floats]) -> Series:
        chosen = np.isfinite(self.value).any(1)
        if not chosen.any():
            return Series(self.name, np.empty(0, np.int64), np.empty(0))
        return Series(self.name, self.step[chosen], function(self.value[chosen], axis=1))


def stands_since(series: Series, within: float = 0.1) -> int | None:
    """Return the step from which on a series has stood within a share of its newest value; None while it moves.

    It stands if it did for the last tenth of its steps at least, and for 4 points.

    >>> stands_since(Series("a", np.arange(6), np.array([1.0, 5, 9.9, 10, 10.1, 10])))
    2
    >>> stands_since(Series("a", np.arange(6), np.arange(6.0)))
    """
    if not series:
        return None
    moved = np.flatnonzero(np.abs(series.value - series.last) > within * abs(series.last))
    first = int(moved[-1]) + 1 if len(moved) else 0
    long = series.step[-1] - series.step[first] >= 0.1 * (series.step[-1] - series.step[0])
    return int(series.step[first]) if len(series) - first >= 4 and long else None


def cleaned(name: str, step: Ints, value: Floats, key: str = "") -> Series:
    """Return a series of points in order of arrival: finite, increasing in step, a step's last point counting.

    A resumed run goes through some steps twice: what it did the second time is what went on.

    >>> cleaned("a", np.array([0, 1, 2, 1, 2]), np.array([0.0, 1.0, 2.0, 5.0, np.nan])).value.tolist()
    [0.0, 5.0]
    """
    if len(step) > 1 and not np.all(step[1:] > step[:-1]):
        kept = _kept(step)
        step, value = step[kept], value[kept]
    finite = np.isfinite(value)
    return Series(name, step[finite], value[finite], key)


def _kept(step: Ints) -> Ints:
    """Return the indices of points that no later point overtakes: none behind them has their step or a smaller one."""
    smallest_after = np.minimum.accumulate(step[::-1])[::-1]
    return np.flatnonzero(np.append(step[:-1] < smallest_after[1:], True))


def thinned(series: Series, most: int = MOST_POINTS) -> Series:
    """Return medians of blocks where a series is longer than `most`; each stands at the last step of its block.

    Blocks are a power of two long, so that a run that goes on keeps the blocks that it has until their length
    doubles; one that is not full yet is left out.
    """
    if len(series) <= most:
        return series
    length = 1 << int(np.ceil(np.log2(len(series) / most)))
    num = len(series) // length
    blocks = series.value[: num * length].reshape(num, length)
    return Series(series.name, series.step[length - 1 : num * length : length], np.median(blocks, 1), series.key)


def cleaned_layers(name: str, step: Ints, value: Floats, keys: tuple[str, ...]) -> Layers:
    """Return a metric with keys as `cleaned` does: increasing in step, NaN where a value is not finite.

    Of more than `MOST_ROWS` measurements every second, fourth, eighth… is taken.
    """
    apart = 1 << max(0, int(np.ceil(np.log2(max(len(step), 1) / MOST_ROWS))))
    if len(step) > 1 and not np.all(step[1:] > step[:-1]):
        kept = _kept(step)
        step, value = step[kept], value[kept]
    step, value = step[::apart], value[::apart]
    return Layers(name, step, np.where(np.isfinite(value), value, np.nan).reshape(len(step), len(keys)), keys)
