"""The loss on the plane of the path's first two principal components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trainvitals.checkpoints.bench import Bench
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.fitting import put
from trainvitals.checkpoints.paths.at_a_point import add, loss_here, wide
from trainvitals.checkpoints.paths.base import Part, PathMetric, Readings, described
from trainvitals.checkpoints.paths.geometry import Geometry, components, trained
from trainvitals.schema import Chart, Description, Reading

NUM_POINTS = 15
_MARGIN = 0.2  # of the path's extent, on each side


@dataclass(frozen=True)
class Plane:
    """θ̄ + x v₁ + y v₂ as sums over checkpoints: v_k = Σ_i U_ik θ_i / √λ_k, for Σ_i U_ik = 0."""

    checkpoints: tuple[Checkpoint, ...]
    factors: tuple[tuple[float, float], ...]  # U_ik / √λ_k for the two components

    def tensors(self, bench: Bench) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Return θ̄, v₁ and v₂, built once a worker from one checkpoint after the other."""
        if bench.kept.get("plane") == self:
            return bench.kept["tensors of the plane"]
        first, second = self._sum(bench, [a for a, _ in self.factors]), self._sum(bench, [b for _, b in self.factors])
        own = dict(bench.subject.model.named_parameters())
        with torch.no_grad():  # the mean is summed in the model itself: no fourth set of weights is held
            for index, checkpoint in enumerate(self.checkpoints):
                for name, tensor in trained(bench, checkpoint).items():
                    own[name].copy_(tensor) if index == 0 else own[name].lerp_(tensor.to(own[name]), 1 / (index + 1))
        mean = {name: own[name].detach().clone() for name in first}
        bench.kept |= {"plane": self, "tensors of the plane": (mean, first, second)}
        return mean, first, second

    def _sum(self, bench: Bench, factors: Sequence[float]) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        for checkpoint, factor in zip(self.checkpoints, factors, strict=True):
            weights = trained(bench, checkpoint)
            add(total, weights, factor)
            del weights  # before the next one is read
        return total


@dataclass(frozen=True)
class Row:
    """The losses of one row of the grid."""

    plane: Plane
    y: float
    xs: tuple[float, ...]

    def __call__(self, bench: Bench) -> list[float]:
        """Return the losses at all x."""
        mean, first, second = self.plane.tensors(bench)
        losses = []
        for x in self.xs:
            put(bench.subject.model, (
                (name, wide(tensor) + x * first[name] + self.y * second[name]) for name, tensor in mean.items()
            ))  # fmt: skip
            losses.append(loss_here(bench))
        return losses


class PathLandscape(PathMetric):
    """`path.landscape`: a surface under the path, at the last checkpoint.

    Args:
        geometry: whose components span the plane.
        num_points: of each side of the grid.
    """

    name: ClassVar = "path.landscape"
    comes_after: ClassVar = "path.pca"

    def __init__(self, geometry: Geometry, num_points: int = NUM_POINTS) -> None:
        if isinstance(num_points, bool) or not isinstance(num_points, int) or num_points < 3:
            raise ValueError(
                f"expected a whole number of at least 3, got num_points={num_points!r} in options of "
                "'path.landscape'; leave it out for 15"
            )
        self._geometry, self._num_points = geometry, num_points
        self._rows: dict[int, list[float]] = {}
        self._x = self._y = np.empty(0)
        self._share = math.nan

    def works(self, checkpoints: Sequence[Checkpoint]) -> list[Part]:
        """Return a job for each row of the grid; none for a path that lies on a line or at a point."""
        if len(self._geometry.checkpoints) < 3:
            return []
        coordinates, shares, vectors = components(self._geometry.squares)
        if coordinates.shape[1] < 2:
            return []
        self._share = float(shares[:2].sum())
        values = np.square(coordinates[:, :2]).sum(0)  # λ_k
        factors = vectors[:, :2] / np.sqrt(values)
        plane = Plane(tuple(self._geometry.checkpoints), tuple((float(a), float(b)) for a, b in factors))
        self._x, self._y = (_axis(coordinates[:, k], self._num_points) for k in (0, 1))
        last = self._geometry.steps[-1]
        return [Part(Row(plane, float(y), tuple(map(float, self._x))), last, self.name) for y in self._y]

    def arrived(self, index: int, result: Any) -> Readings:
        """Take a row in; when all are there, return the surface."""
        self._rows[index] = result
        if len(self._rows) < len(self._y):
            return {}
        losses = np.array([self._rows[i] for i in range(len(self._y))])
        details = {"x": self._x, "y": self._y, "variance_in_plane": self._share}
        keys = tuple(f"{y:.6g}" for y in self._y)
        return {self._geometry.steps[-1]: {"path.landscape": Reading(losses, keys=keys, details=details)}}

    @classmethod
    def descriptions(cls) -> dict[str, Description]:
        """Return what is recorded."""
        words = described(
            "path.landscape", "Loss on the plane of the path",
            "The train-probe loss on the plane of the first two components; the path itself lies near the plane only "
            "as far as they explain its variance.",
            formula=r"L(\bar\theta + x\,v_1 + y\,v_2)", unit="loss", chart=Chart.HEATMAP, keys="second component",
            undefined="Fewer than three checkpoints, or a path on a line.",
            source="Li et al. 2018, Visualizing the Loss Landscape of Neural Nets, section 7; BatchNorm's statistics "
            "are made anew at each point", cost="a forward pass for each point of the grid",
        )  # fmt: skip
        return {words.name: words}


def _axis(coordinates: np.ndarray, num_points: int) -> np.ndarray:
    low, high = float(coordinates.min()), float(coordinates.max())
    margin = _MARGIN * (high - low)
    return np.linspace(low - margin, high + margin, num_points)
