"""Two runs compared, checkpoint by checkpoint at the same steps.

Weights are compared as they are. Units of hidden layers may be permuted between runs from different seeds, which
leaves the function as it is and makes distances and barriers large; features (CKA) do not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainvitals.checkpoints.bench import Bench
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.fitting import put
from trainvitals.checkpoints.paths.barrier import NUM_POINTS, SOURCE, Segment, curve_descriptions, curve_readings
from trainvitals.checkpoints.paths.base import Part, PathMetric, Readings, described
from trainvitals.checkpoints.paths.geometry import of_pair
from trainvitals.checkpoints.paths.similarity import cka_of_grams, gram_here
from trainvitals.diagnostics.cka import FeatureCka
from trainvitals.schema import Description, Reading


@dataclass(frozen=True)
class Pair:
    """A checkpoint of this run and one of the other."""

    own: Checkpoint
    other: Checkpoint
    num_points: int

    def __call__(self, bench: Bench) -> dict[str, Any]:
        """Return the curves between them, their distance and angle, and the similarity of their features."""
        curves = Segment(self.own, self.other, self.num_points)(bench)
        weights = [bench.weights(checkpoint) for checkpoint in (self.own, self.other)]
        names = bench.trained_names
        a, b = ({name: t for name, t in w.items() if names is None or name in names} for w in weights)
        square, product = of_pair(a, b)
        norms = [np.sqrt(of_pair(w, w)[1]) for w in (a, b)]
        grams = []
        for each in weights:
            put(bench.subject.model, each.items())
            grams.append(gram_here(bench))
        cosine = product / max(norms[0] * norms[1], 1e-300)
        return {
            "curves": curves, "distance": float(np.sqrt(square)), "cka": cka_of_grams(*grams),
            "angle": float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
        }  # fmt: skip


class Against(PathMetric):
    """`path.against`: barrier, distance, angle and CKA of the checkpoints of two runs at the steps that both have.

    Args:
        others: the checkpoints of the other run.
        num_points: of each line.
    """

    name: ClassVar = "path.against"

    def __init__(self, others: Sequence[Checkpoint], num_points: int = NUM_POINTS) -> None:
        self._others = {c.step: c for c in others}
        self._num_points = num_points
        self._steps: list[int] = []

    def works(self, checkpoints: Sequence[Checkpoint]) -> list[Part]:
        """Return a pair for each step that both runs have."""
        pairs = [(c, self._others[c.step]) for c in checkpoints if c.step in self._others]
        self._steps = [a.step for a, _ in pairs]
        return [Part(Pair(a, b, self._num_points), a.step, "path.against.distance") for a, b in pairs]

    def arrived(self, index: int, result: Any) -> Readings:
        """Return what one pair gave."""
        return {self._steps[index]: {
            **curve_readings("path.against", result["curves"], self._steps[index]),
            "path.against.distance": Reading(result["distance"]),
            "path.against.angle": Reading(result["angle"]),
            "path.against.cka": result["cka"],
        }}  # fmt: skip

    @classmethod
    def descriptions(cls) -> dict[str, Description]:
        """Return what is recorded."""
        undefined = "Steps that only one of the runs has."
        rows = [
            described("path.against.distance", "Distance to the other run",
                      "How far the weights of the two runs are apart at the same step, units as they stand.",
                      formula=r"\lVert\theta_a - \theta_b\rVert", unit="weight", undefined=undefined,
                      source="by the definition"),
            described("path.against.angle", "Angle to the other run",
                      "The angle between the weight vectors of the two runs at the same step.",
                      formula=r"\angle(\theta_a, \theta_b)", unit="degrees", undefined=undefined,
                      source="by the definition"),
            described("path.against.cka", "Similarity of the features to the other run's (CKA)",
                      "How alike the last-layer features of the two runs are: 1 is the same up to rotation and scale.",
                      formula=FeatureCka.formula, unit="1", undefined=undefined, source=FeatureCka.source),
        ]  # fmt: skip
        return {**curve_descriptions("path.against", "to the other run", SOURCE), **{row.name: row for row in rows}}
