"""How alike the last-layer features of any two checkpoints are (CKA).

Legend: N samples, M checkpoints, U (N, N) U-centred Gram matrix of unit norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainvitals.checkpoints.bench import Bench
from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.paths.base import Part, PathMetric, Readings, described, thinned
from trainvitals.checkpoints.paths.geometry import MAX_CHECKPOINTS
from trainvitals.diagnostics.base import Diagnostic, Needs, Snapshot, Tier
from trainvitals.diagnostics.cka import FeatureCka, u_centred
from trainvitals.probes.measure import take_readings
from trainvitals.schema import Chart, Description, Question, Reading

MAX_SAMPLES = 256  # of the probe: half a megabyte a checkpoint


@dataclass
class FeatureGram(Diagnostic):
    """The U-centred Gram matrix of the last-layer features, (N, N). No metric of its own."""

    name = "features.gram"
    title = summary = formula = "U-centred Gram matrix of the features"
    question = Question.REPRESENTATION
    undefined = FeatureCka.undefined
    source = FeatureCka.source
    needs = Needs.FEATURES
    tier = Tier.ON_REQUEST
    interval = 1

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the matrix."""
        return Reading(u_centred(snapshot.features[:MAX_SAMPLES]).cpu().numpy())


@dataclass(frozen=True)
class Features:
    """The Gram matrix of one checkpoint's features."""

    checkpoint: Checkpoint

    def __call__(self, bench: Bench) -> tuple[np.ndarray | None, str | None]:
        """Return the matrix, or why there is none."""
        bench.put(self.checkpoint)
        return gram_here(bench)


def gram_here(bench: Bench) -> tuple[np.ndarray | None, str | None]:
    """Return the Gram matrix of the features of the model as it stands, or why there is none."""
    reading = take_readings(bench.subject, [FeatureGram()])[FeatureGram.name]
    return reading.value, reading.missing


class Similarity(PathMetric):
    """`path.cka`: of all pairs, as a matrix at the last checkpoint."""

    name: ClassVar = "path.cka"

    def __init__(self) -> None:
        self._checkpoints: list[Checkpoint] = []
        self._grams: dict[int, np.ndarray] = {}
        self._reasons: list[str] = []
        self._num_arrived = 0

    def works(self, checkpoints: Sequence[Checkpoint]) -> list[Part]:
        """Return a job for each checkpoint."""
        self._checkpoints = thinned(checkpoints, MAX_CHECKPOINTS)
        return [Part(Features(c), self._checkpoints[-1].step, "path.cka.between") for c in self._checkpoints]

    def arrived(self, index: int, result: Any) -> Readings:
        """Take a matrix in; when all are there, compare them."""
        gram, reason = result
        self._num_arrived += 1
        if gram is None:
            self._reasons.append(f"step {self._checkpoints[index].step}: {reason}")
        else:
            self._grams[index] = gram
        if self._num_arrived < len(self._checkpoints):
            return {}
        return {self._checkpoints[-1].step: {"path.cka.between": self._compared()}}

    def _compared(self) -> Reading:
        if len(self._grams) < 2:
            return Reading.absent("; ".join(self._reasons[:2]) or "there is one checkpoint")
        kept = sorted(self._grams)
        flat = np.stack([self._grams[i].ravel() for i in kept])
        keys = tuple(str(self._checkpoints[i].step) for i in kept)
        return Reading(flat @ flat.T, keys=keys, details={"left_out": self._reasons} if self._reasons else {})

    @classmethod
    def descriptions(cls) -> dict[str, Description]:
        """Return what is recorded."""
        words = described(
            "path.cka.between", "Similarity of the features of checkpoints (CKA)",
            "How alike the last-layer features of any two checkpoints are: 1 is the same up to rotation and scale.",
            formula=FeatureCka.formula, unit="1", undefined=FeatureCka.undefined, source=FeatureCka.source,
            chart=Chart.HEATMAP, keys="step", cost="one forward pass a checkpoint",
        )  # fmt: skip
        return {words.name: words}


def cka_of_grams(one: tuple[np.ndarray | None, str | None], other: tuple[np.ndarray | None, str | None]) -> Reading:
    """Return the similarity of two checkpoints from their matrices, or why there is none."""
    if one[0] is None or other[0] is None:
        return Reading.absent(str(one[1] or other[1]))
    if one[0].shape != other[0].shape:
        raise CheckpointError("expected features of the same samples, got two probes in path.against; use one batch")
    return Reading(float((one[0] * other[0]).sum()))
