r"""Where the path goes: principal components, distances, angles, all from inner products of pairs of checkpoints.

M checkpoints θ_i ∈ R^P. Squared distances D_ij = ‖θ_i − θ_j‖² and inner products are summed in float64, three
checkpoints in memory at a time; the components are those of the M × M matrix −½ J D J with J = I − 11ᵀ/M, which has
the eigenvalues of the covariance times M (classical scaling: Torgerson 1952).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from trainvitals.checkpoints.bench import Bench
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.paths.base import Part, PathMetric, Readings, described, thinned
from trainvitals.schema import Chart, Description, Reading

MAX_CHECKPOINTS = 100  # in pairs: M²/4 readings of files
_IN_MEMORY = 2  # rows of a block; with the column that passes by, three checkpoints
_MAX_COMPONENTS = 10  # whose share of variance is told
_SCALING = "Torgerson 1952, Multidimensional scaling: I; on training paths: Li et al. 2018, section 7"
_EXACT = "float64 sums over all trained tensors"
_MARKS = {
    "path.pca": "path.pca.explained", "path.distance": "path.distance.between", "path.angle": "path.angle.between",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Squared distances and inner products of a few checkpoints with many."""

    rows: tuple[Checkpoint, ...]
    columns: tuple[Checkpoint, ...]

    def __call__(self, bench: Bench) -> tuple[np.ndarray, np.ndarray]:
        """Return both, (rows, columns)."""
        rows = [trained(bench, checkpoint) for checkpoint in self.rows]
        squares = np.zeros((len(self.rows), len(self.columns)))
        products = np.zeros_like(squares)
        for j, checkpoint in enumerate(self.columns):
            column = trained(bench, checkpoint)
            for i, row in enumerate(rows):
                squares[i, j], products[i, j] = of_pair(row, column)
            del column  # before the next one is read
        return squares, products


def trained(bench: Bench, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the trained tensors of a checkpoint."""
    names, weights = bench.trained_names, bench.weights(checkpoint)
    return {name: tensor for name, tensor in weights.items() if names is None or name in names}


def of_pair(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> tuple[float, float]:
    """Return ‖a − b‖² and ⟨a, b⟩ over all tensors, summed in float64."""
    square = product = 0.0
    for name, left in a.items():
        x, y = left.double(), b[name].to(left.device).double()
        product += float((x * y).sum())
        square += float((x - y).square_().sum())
    return square, product


def components(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return coordinates (M, k), shares of variance (k,) and the eigenvectors (M, k) from squared distances (M, M).

    A component's sign makes the last checkpoint's coordinate positive.

    >>> line = np.array([[0.0], [1.0], [3.0]])
    >>> coordinates, shares, _ = components((line - line.T) ** 2)
    >>> np.round(np.diff(coordinates[:, 0]), 6).tolist(), round(float(shares[0]), 6)
    ([1.0, 2.0], 1.0)
    """
    num = len(squares)
    J = np.eye(num) - 1 / num
    values, vectors = np.linalg.eigh(-0.5 * J @ squares @ J)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    keep = values > max(values[0], 0) * 1e-12
    values, vectors = values[keep], vectors[:, keep]
    vectors = vectors * np.where(vectors[-1] < 0, -1.0, 1.0)
    return vectors * np.sqrt(values), values / max(values.sum(), 1e-300), vectors


class Geometry(PathMetric):
    """`path.pca`, `path.distance` and `path.angle`.

    Args:
        wanted: which of the three are recorded.
        is_needed: whether another metric rests on the distances.
        num_components: how many coordinates are recorded.
    """

    name: ClassVar = "path.pca"
    needs_model: ClassVar = False

    def __init__(self, wanted: frozenset[str], *, is_needed: bool = False, num_components: int = 3) -> None:
        if isinstance(num_components, bool) or not isinstance(num_components, int) or num_components < 1:
            raise ValueError(
                f"expected a whole number of at least 1, got num_components={num_components!r} in options of "
                "'path.pca'; leave it out for 3"
            )
        self._wanted, self._num_components, self._is_needed = wanted, num_components, is_needed
        self._checkpoints: list[Checkpoint] = []
        self._num_all = self._num_arrived = self._num_works = 0
        self.squares = self.products = np.empty((0, 0))

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints that are compared."""
        return [c.step for c in self._checkpoints]

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that are compared."""
        return self._checkpoints

    def works(self, checkpoints: Sequence[Checkpoint]) -> list[Part]:
        """Return a job for every two rows of the upper triangle."""
        self._num_all, self._checkpoints = len(checkpoints), thinned(checkpoints, MAX_CHECKPOINTS)
        num = len(self._checkpoints)
        if num < 2:
            return []
        self.squares, self.products = np.zeros((num, num)), np.zeros((num, num))
        starts = range(0, num, _IN_MEMORY)
        self._num_works = len(starts)
        return [
            Part(Block(tuple(self._checkpoints[i : i + _IN_MEMORY]), tuple(self._checkpoints[i:])),
                 self.steps[-1], self._recorded_last()) for i in starts
        ]  # fmt: skip

    def _recorded_last(self) -> str | None:
        """Return a metric that stands at the last step when all is done; None if others need the distances."""
        if self._is_needed:
            return None
        return next(mark for name, mark in _MARKS.items() if name in self._wanted)

    def arrived(self, index: int, result: Any) -> Readings:
        """Take a block in; when all are there, return all readings."""
        start = index * _IN_MEMORY
        squares, products = result
        for matrix, block in ((self.squares, squares), (self.products, products)):
            matrix[start : start + len(block), start:] = block
            matrix[start:, start : start + len(block)] = block.T
        self._num_arrived += 1
        if self._num_arrived < self._num_works:
            return {}
        np.fill_diagonal(self.squares, 0.0)
        return self._readings()

    def _readings(self) -> Readings:
        found: dict[int, dict[str, Reading]] = {step: {} for step in self.steps}
        if "path.pca" in self._wanted:
            self._add_components(found)
        if "path.distance" in self._wanted:
            self._add_distances(found)
        if "path.angle" in self._wanted:
            self._add_angles(found)
        return found

    def _add_components(self, found: dict[int, dict[str, Reading]]) -> None:
        coordinates, shares, _ = components(self.squares)
        k = min(self._num_components, coordinates.shape[1])
        details = {"num_checkpoints": len(self.steps), "num_left_out": self._num_all - len(self.steps)}
        last = self.steps[-1]
        if not k:
            same = Reading.absent("all checkpoints have the same weights")
            found[last] |= {"path.pca.coordinates": same, "path.pca.explained": same}
            return
        for step, row in zip(self.steps, coordinates[:, :k], strict=True):
            found[step]["path.pca.coordinates"] = Reading(row.copy(), keys=_component_names(k), details=details)
        shown = shares[:_MAX_COMPONENTS]
        found[last]["path.pca.explained"] = Reading(shown, keys=_component_names(len(shown)), details=details)

    def _add_distances(self, found: dict[int, dict[str, Reading]]) -> None:
        distances, steps = np.sqrt(self.squares), self.steps
        for i, step in enumerate(steps):
            found[step]["path.distance.initial"] = Reading(float(distances[i, 0]))
            found[step]["path.distance.final"] = Reading(float(distances[i, -1]))
            if i:
                found[step]["path.distance.previous"] = Reading(
                    float(distances[i, i - 1]), details={"step": steps[i - 1]}
                )
        found[steps[-1]]["path.distance.between"] = Reading(distances, keys=tuple(map(str, steps)))

    def _add_angles(self, found: dict[int, dict[str, Reading]]) -> None:
        norms = np.sqrt(np.diag(self.products))
        outer = np.outer(norms, norms)
        if (outer > 0).all():
            between = np.degrees(np.arccos(np.clip(self.products / outer, -1, 1)))
            np.fill_diagonal(between, 0.0)
            reading = Reading(between, keys=tuple(map(str, self.steps)))
        else:
            reading = Reading.absent("a checkpoint's weights are all zero")
        found[self.steps[-1]]["path.angle.between"] = reading
        for i, step in enumerate(self.steps[1:-1], 1):
            a, b, c = self.squares[i - 1, i], self.squares[i, i + 1], self.squares[i - 1, i + 1]
            if a > 0 and b > 0:
                cosine = np.clip((c - a - b) / (2 * np.sqrt(a * b)), -1, 1)
                found[step]["path.angle.turn"] = Reading(float(np.degrees(np.arccos(cosine))))
            else:
                found[step]["path.angle.turn"] = Reading.absent("the weights did not move on one side of it")

    @classmethod
    def descriptions(cls) -> dict[str, Description]:
        """Return what is recorded."""
        two = "Fewer than two checkpoints"
        rows = [
            described("path.pca.coordinates", "Path in its principal components",
                      "Where the weights are on the first components of the path; other runs have other components.",
                      formula=r"(\theta_t - \bar\theta)^\top v_k", unit="weight", chart=Chart.LINES, keys="component",
                      undefined=f"{two}; weights that never change.", source=_SCALING, cost=_EXACT),
            described("path.pca.explained", "Variance of the path by component",
                      "How much of the path lies on each component: a random walk, too, lies mostly on the first few.",
                      formula=r"\lambda_k / \sum_j \lambda_j", unit="share", chart=Chart.HEATMAP, keys="component",
                      undefined=f"{two}; weights that never change.",
                      source="Antognini, Sohl-Dickstein 2018, PCA of high dimensional random walks", cost=_EXACT),
            described("path.distance.initial", "Distance from the first checkpoint",
                      "How far the weights have come.", formula=r"\lVert\theta_t - \theta_0\rVert", unit="weight",
                      undefined=f"{two}.", source="by the definition", cost=_EXACT),
            described("path.distance.previous", "Distance from the previous checkpoint",
                      "How far the weights went from one checkpoint to the next.",
                      formula=r"\lVert\theta_t - \theta_{t-1}\rVert", unit="weight",
                      undefined="The first checkpoint.", source="by the definition", cost=_EXACT),
            described("path.distance.final", "Distance from the last checkpoint",
                      "How far the weights still had to go.", formula=r"\lVert\theta_t - \theta_T\rVert",
                      unit="weight", undefined=f"{two}.", source="by the definition", cost=_EXACT),
            described("path.distance.between", "Distances between checkpoints",
                      "How far any two checkpoints are apart.",
                      formula=r"\lVert\theta_i - \theta_j\rVert", unit="weight", chart=Chart.HEATMAP, keys="step",
                      undefined=f"{two}.", source="by the definition", cost=_EXACT),
            described("path.angle.between", "Angles between checkpoints",
                      "The angle between the weight vectors of any two checkpoints.",
                      formula=r"\arccos\frac{\theta_i^\top\theta_j}{\lVert\theta_i\rVert\,\lVert\theta_j\rVert}",
                      unit="degrees", chart=Chart.HEATMAP, keys="step", undefined="Weights that are all zero.",
                      source="by the definition", cost=_EXACT),
            described("path.angle.turn", "Turn of the path",
                      "The angle between the way to a checkpoint and the way from it: 0 is straight on, 180 is back.",
                      formula=r"\angle(\theta_t - \theta_{t-1},\ \theta_{t+1} - \theta_t)", unit="degrees",
                      undefined="The first and the last checkpoint; weights that did not move.",
                      source="by the definition", cost=_EXACT),
        ]  # fmt: skip
        return {row.name: row for row in rows}


def _component_names(num: int) -> tuple[str, ...]:
    return tuple(f"PC{i + 1}" for i in range(num))
