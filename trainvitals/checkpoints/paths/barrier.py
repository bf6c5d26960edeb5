"""How high the loss rises on the straight line between two checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from trainvitals.checkpoints.bench import Bench
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.paths.at_a_point import loss_here, put_mixed
from trainvitals.checkpoints.paths.base import Part, PathMetric, Readings, described
from trainvitals.schema import Chart, Description, Reading

NUM_POINTS = 11
SOURCE = (
    "Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis, section 2; BatchNorm's "
    "statistics made anew at each point: Jordan et al. 2023, REPAIR, section 2"
)


def barrier_of(losses: np.ndarray, coordinates: np.ndarray) -> float:
    """Return max over α of L(α) − ((1 − α) L(0) + α L(1)), at least 0, over the points of a curve.

    >>> barrier_of(np.array([1.0, 3.0, 2.0]), np.array([0.0, 0.5, 1.0]))
    1.5
    """
    straight = (1 - coordinates) * losses[0] + coordinates * losses[-1]
    return float(np.max(losses - straight))


@dataclass(frozen=True)
class Segment:
    """The losses on the line from one checkpoint to another."""

    start: Checkpoint
    end: Checkpoint
    num_points: int

    def __call__(self, bench: Bench) -> dict[str, np.ndarray]:
        """Return the losses (n,) by probe, at equal steps from the start to the end."""
        a, b = bench.weights(self.start), bench.weights(self.end)
        curves = {"train": np.empty(self.num_points)}
        if bench.subject.heldout is not None:
            curves["heldout"] = np.empty(self.num_points)
        for i in range(self.num_points):
            put_mixed(bench.subject.model, a, b, i / (self.num_points - 1))
            curves["train"][i] = loss_here(bench)
            if "heldout" in curves:
                curves["heldout"][i] = bench.loss(heldout=True)
        return curves


class Barrier(PathMetric):
    """`path.barrier`: of every checkpoint with the one before it, and of the first with the last.

    Args:
        num_points: of each line, its ends included.
    """

    name: ClassVar = "path.barrier"

    def __init__(self, num_points: int = NUM_POINTS) -> None:
        if isinstance(num_points, bool) or not isinstance(num_points, int) or num_points < 3:
            raise ValueError(
                f"expected a whole number of at least 3, got num_points={num_points!r} in options of 'path.barrier'; "
                "leave it out for 11"
            )
        self._num_points = num_points
        self._pairs: list[tuple[Checkpoint, Checkpoint]] = []

    def works(self, checkpoints: Sequence[Checkpoint]) -> list[Part]:
        """Return a line for each two neighbours, and one from end to end."""
        self._pairs = list(pairwise(checkpoints))
        if len(checkpoints) > 1:
            self._pairs.append((checkpoints[0], checkpoints[-1]))
        marks = ["path.barrier.height"] * (len(self._pairs) - 1) + ["path.barrier.ends.height"]
        return [Part(Segment(a, b, self._num_points), b.step, mark)
                for (a, b), mark in zip(self._pairs, marks, strict=False)]  # fmt: skip

    def arrived(self, index: int, result: Any) -> Readings:
        """Return the barrier and the curves of a line."""
        a, b = self._pairs[index]
        is_whole = index == len(self._pairs) - 1
        return {b.step: curve_readings("path.barrier.ends" if is_whole else "path.barrier", result, a.step)}

    @classmethod
    def descriptions(cls) -> dict[str, Description]:
        """Return what is recorded."""
        return {
            **curve_descriptions("path.barrier", "to the previous checkpoint", SOURCE),
            **curve_descriptions("path.barrier.ends", "from the first checkpoint to the last", SOURCE),
        }


def curve_readings(name: str, curves: dict[str, np.ndarray], start: int) -> dict[str, Reading]:
    """Return the barrier and the losses along a line that begins at a step, on each probe."""
    readings: dict[str, Reading] = {}
    for probe, losses in curves.items():
        coordinates = np.linspace(0, 1, len(losses))
        suffix = "" if probe == "train" else f"_{probe}"
        if np.isfinite(losses).all():
            readings[f"{name}.height{suffix}"] = Reading(barrier_of(losses, coordinates), details={"from": start})
        else:
            readings[f"{name}.height{suffix}"] = Reading.absent("the loss is not finite on the way")
        keys = tuple(f"{c:.3g}" for c in coordinates)
        details = {"coordinates": coordinates, "from": start}
        readings[f"{name}.curve{suffix}"] = Reading(losses, keys=keys, details=details)
    return readings


def curve_descriptions(name: str, where: str, source: str) -> dict[str, Description]:
    """Return the descriptions of what `curve_readings` gives."""
    rows = []
    for probe, suffix in (("train", ""), ("held-out", "_heldout")):
        rows += [
            described(f"{name}.height{suffix}", f"Loss barrier {where} ({probe} probe)",
                      f"How far the loss rises above the straight line between its ends, {where}: 0 is one valley.",
                      formula=r"\max_\alpha L((1-\alpha)\theta_a + \alpha\theta_b) - ((1-\alpha)L_a + \alpha L_b)",
                      unit="loss", undefined="The first checkpoint; a loss that is not finite.", source=source,
                      cost="forward passes at each point of a line"),
            described(f"{name}.curve{suffix}", f"Loss on the line {where} ({probe} probe)",
                      f"The loss at equal steps on the line {where}.",
                      formula=r"L((1-\alpha)\theta_a + \alpha\theta_b)", unit="loss", chart=Chart.HEATMAP, keys="α",
                      undefined="The first checkpoint.", source=source,
                      cost="forward passes at each point of a line"),
        ]  # fmt: skip
    return {row.name: row for row in rows}
