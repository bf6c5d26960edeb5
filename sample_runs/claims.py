"""What a sample says of its recorded runs: whether the effect is there, how large it is, and the figures behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

import trainvitals as tv

Runs = Mapping[str, tv.Run]  # by the name of the arm


@dataclass(frozen=True)
class Claim:
    """The outcome of one seed.

    Args:
        shown: whether the effect is there.
        effect: its size, one number.
        effect_is: what that number is, in words.
        figures: the other numbers that the outcome rests on, by name.
    """

    shown: bool
    effect: float
    effect_is: str
    figures: Mapping[str, float] = field(default_factory=dict)


def course(run: tv.Run, name: str, key: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps (T,) and the values (T,) of a metric; of an array, those of one key.

    Raises:
        ValueError: if the run has no such metric, or the metric no such key.
    """
    points = run.series(name)
    if key is not None:
        keys = points["key"].unique()
        points = points[points["key"] == key]
        if points.empty:
            raise ValueError(
                f"expected a key of {name!r} in run {run.name!r}, got {key!r} in course(); try one of {list(keys)}"
            )
    return points["step"].to_numpy(), points["value"].to_numpy()


def last(run: tv.Run, name: str, key: str | None = None, mean_of: int = 1) -> float:
    """Return the last value of a metric, or the mean of its last few."""
    return float(np.mean(course(run, name, key)[1][-mean_of:]))


def at(run: tv.Run, name: str, step: int, key: str | None = None) -> float:
    """Return the value of a metric at the measured step nearest to a step."""
    steps, values = course(run, name, key)
    return float(values[np.argmin(np.abs(steps - step))])


def reached(run: tv.Run, name: str, level: float) -> float:
    """Return the first measured step at which a metric is at or above a level; infinite if it never is."""
    steps, values = course(run, name)
    is_there = values >= level
    return float(steps[np.argmax(is_there)]) if is_there.any() else float("inf")
