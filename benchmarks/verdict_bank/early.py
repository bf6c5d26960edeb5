"""Which metrics pointed at overfitting before the held-out loss turned, at a price in false alarms that is fixed first.

For each metric a level is set on one half of the bank so that at most a tenth of the healthy runs ever pass it; it
"pointed there" in a run of the other half if it passed the level before the turn. No labels of that half are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

Read = Callable[[str], pd.DataFrame]
MOST_FALSE = 0.1  # of the healthy runs


def _mean(read: Read, name: str) -> pd.Series:
    points = read(name)
    return points.groupby("step")["value"].mean() if len(points) else pd.Series(dtype=float)


def _change(series: pd.Series) -> pd.Series:
    return series - series.iloc[0] if len(series) else series


def _log(series: pd.Series) -> pd.Series:
    return np.log(series[series > 0])


INDICATORS: dict[str, Callable[[Read], pd.Series]] = {
    "OUI": lambda read: _mean(read, "oui"),
    "OUI since its start": lambda read: _change(_mean(read, "oui")),
    "m-coherence": lambda read: _mean(read, "grad.coherence"),
    "gradient noise scale (log)": lambda read: _log(_mean(read, "grad.noise_scale")),
    "mean EL2N": lambda read: _mean(read, "el2n"),
    "weight norm growth": lambda read: _mean(read, "weights.norm.growth"),
    "distance from the start": lambda read: _mean(read, "weights.norm.distance"),
    "sharpness over threshold": lambda read: _mean(read, "stability.ratio"),
    "gap of the loss": lambda read: _mean(read, "gap.loss"),
    "membership AUC": lambda read: _mean(read, "mia_auc"),
}


@dataclass(frozen=True)
class Level:
    """Where a metric is held to point at overfitting."""

    is_above: bool
    value: float

    def first(self, series: pd.Series) -> int | None:
        """Return the first step at which the level is passed, or None."""
        passed = series > self.value if self.is_above else series < self.value
        return int(series.index[int(np.argmax(passed.to_numpy()))]) if passed.any() else None


@dataclass(frozen=True)
class Lead:
    """How early a metric pointed at overfitting on the runs that overfit."""

    level: Level
    num_runs: int
    leads: tuple[float, ...]  # (turn − step it was passed) / turn, of the runs where it was passed before the turn
    num_false: int  # healthy runs of the same half that passed it
    num_healthy: int


def set_level(healthy: Sequence[pd.Series], overfit: Sequence[tuple[pd.Series, int]]) -> Level | None:
    """Return the level that most overfitting runs pass before their turn, and few healthy ones ever."""
    found: list[tuple[int, Level]] = []
    healthy = [s for s in healthy if len(s)]
    if len(healthy) < 5:
        return None
    for is_above in (True, False):
        extremes = sorted((float(s.max() if is_above else -s.min()) for s in healthy), reverse=True)
        edge = extremes[int(MOST_FALSE * len(extremes))]
        level = Level(is_above, edge if is_above else -edge)
        firsts = [(level.first(s), turn) for s, turn in overfit if len(s)]
        found.append((sum(first is not None and first < turn for first, turn in firsts), level))
    return max(found, key=lambda pair: pair[0])[1]


def lead(level: Level, healthy: Sequence[pd.Series], overfit: Sequence[tuple[pd.Series, int]]) -> Lead:
    """Return how early the level was passed."""
    healthy = [s for s in healthy if len(s)]
    overfit = [(s, turn) for s, turn in overfit if len(s)]
    firsts = [(level.first(s), turn) for s, turn in overfit]
    leads = tuple((turn - first) / max(turn, 1) for first, turn in firsts if first is not None and first < turn)
    return Lead(level, len(overfit), leads, sum(level.first(s) is not None for s in healthy), len(healthy))
