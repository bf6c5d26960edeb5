"""The loss on a line or a plane through the weights.

n points along each direction, P trainable parameters; α, β coordinates on the directions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.hessian_spectrum import defined, hessian_extremes, native_top
from trainvitals.diagnostics.linalg.lanczos import lanczos
from trainvitals.schema import Chart, Question, Reading, Scale

Direction = dict[str, Tensor]  # by parameter name, in the parameters' shapes and order

_NEEDS = {
    "random": Needs.OUTPUTS,
    "eigenvectors": Needs.OUTPUTS | Needs.HVP,
    "update": Needs.OUTPUTS | Needs.TRAJECTORY,
    "given": Needs.OUTPUTS,
}
NUM_POINTS = {1: 41, 2: 21}


@dataclass
class Landscape(Diagnostic):
    """The loss on a grid around the weights, along one direction or two: L(θ + α d₁ + β d₂).

    The grid is −radius … radius in equal steps on each direction; its centre is θ itself. The directions:

    - "random": d ~ N(0, 1), filter-normalised: each filter d_f (a slice of a weight along its first
      dimension: an output channel or neuron) is scaled to ‖w_f‖, and parameters of one dimension (biases) and
      of normalisation layers stay in place. So a radius of 1 is as far as the weights are long, and networks
      that are one function at other scales of their layers have one slice.
    - "eigenvectors": the unit eigenvectors of the largest Hessian eigenvalues, turned uphill; a radius is a
      distance in weights. To second order the slice is the parabola L + α gᵀv + α² λ/2.
    - "update": the last training step, as long as it was: α = −1 is where the weights came from. The second
      direction is the step before it, without its part along the first. In a watched run only.
    - "given": the `vectors` option, as they are: the way to another checkpoint, say.

    In eval mode BatchNorm uses its running statistics at every point, in train mode those of the batch; only
    the latter make a slice blind to the scale of filters before BatchNorm.

    Args:
        directions: "random", "eigenvectors", "update" or "given".
        dimensions: 1, or 2 for a plane.
        num_points: n, odd, so that θ is on the grid; 41 on a line and 21 by 21 on a plane unless told. A forward
            pass over the probe each.
        radius: the grid's reach in units of the directions.
        vectors: with "given", one mapping of parameter names to tensors per dimension; names left out stay.
        tol: relative accuracy of the eigenvalues whose vectors are the directions; their residuals meet it.
        max_iterations: most Hessian-vector products for the eigenvectors.

    Source: Li, Xu, Taylor, Studer, Goldstein 2018 (NeurIPS), §4 (filter normalisation), §7.
    """

    name: ClassVar = "landscape"
    title: ClassVar = "Loss landscape"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The loss along directions through the weights; the weights themselves are at the centre."
    formula: ClassVar = r"L(\theta + \alpha d_1 + \beta d_2),\ d_f \leftarrow d_f\, \lVert w_f\rVert / \lVert d_f\rVert"
    unit: ClassVar = "loss"
    undefined: ClassVar = "the loss at the weights is not finite; a direction that does not exist or is zero"
    source: ClassVar = "Li et al. 2018 (Visualizing the Loss Landscape of Neural Nets), §4"
    needs: ClassVar = Needs.OUTPUTS
    tier: ClassVar = Tier.ON_REQUEST
    interval: ClassVar = 1000
    chart: ClassVar = Chart.LANDSCAPE
    scale: ClassVar = Scale.LOG
    keys: ClassVar = "coordinate"
    passes: ClassVar = "a forward pass for each point of the grid"

    directions: str = "random"
    dimensions: int = 1
    num_points: int | None = None
    radius: float = 1.0
    vectors: Sequence[Mapping[str, Tensor]] | None = None
    tol: float = 1e-3
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if self.directions not in _NEEDS or self.dimensions not in NUM_POINTS:
            raise ValueError(
                f"expected directions among {', '.join(map(repr, _NEEDS))} and dimensions 1 or 2, got directions="
                f"{self.directions!r}, dimensions={self.dimensions} in options of 'landscape'; leave them out for "
                "'random' and 1"
            )
        if self.num_points is None:
            self.num_points = NUM_POINTS[self.dimensions]
        if self.num_points < 3 or self.num_points % 2 == 0 or not 0 < self.radius < math.inf:
            raise ValueError(
                f"expected an odd num_points ≥ 3 and a radius > 0, got num_points={self.num_points}, radius="
                f"{self.radius} in options of 'landscape'; an odd number has the weights at its centre"
            )
        given = 0 if self.vectors is None else len(self.vectors)
        if given != (self.dimensions if self.directions == "given" else 0):
            raise ValueError(
                f"expected one vector per dimension with directions='given' and none without, got {given} for "
                f"directions={self.directions!r}, dimensions={self.dimensions} in options of 'landscape'; give "
                "vectors=[{name: tensor, ...}, ...]"
            )
        if not self.tol > 0 or self.max_iterations <= self.dimensions:
            raise ValueError(
                f"expected tol > 0 and max_iterations > dimensions, got tol={self.tol}, max_iterations="
                f"{self.max_iterations} in options of 'landscape'; raise them"
            )
        self.needs = _NEEDS[self.directions]  # pyright: ignore[reportAttributeAccessIssue]  # of these options

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the losses, (n,) or (n, n) with a row per point of the first direction."""
        assert self.num_points is not None
        directions, details, hvps = self._directions(snapshot)
        centre = snapshot.train.loss
        if not math.isfinite(centre):
            raise Missing("the loss at the weights is not finite")
        lengths = [_length(d) for d in directions]
        if not all(0 < length < math.inf for length in lengths):
            raise Missing(f"a direction is zero or not finite: {self.directions} directions of lengths {lengths}")
        coordinates = grid(self.num_points, self.radius)
        losses = losses_on_grid(
            snapshot.batch_losses(), snapshot.parameters, directions, coordinates,
            progress=lambda done, total: snapshot.progress(self.name, done, total),
        )  # fmt: skip
        details |= {
            "coordinates": coordinates, "directions": self.directions, "centre": centre, "lengths": lengths,
            "num_not_finite": int((~np.isfinite(losses)).sum()),
        }  # fmt: skip
        return Reading(losses, keys=tuple(f"{a:.6g}" for a in coordinates), hvps=hvps, details=details)

    def _directions(self, snapshot: Snapshot) -> tuple[list[Direction], dict[str, Any], int]:
        """Return the directions, what is known of them, and the Hessian-vector products that they cost."""
        if self.directions == "eigenvectors":
            return self._eigenvectors(snapshot)
        if self.directions == "update":
            return self._updates(snapshot), {}, 0
        if self.vectors is not None:
            return [_as_direction(v, snapshot.parameters) for v in self.vectors], {}, 0
        generator = snapshot.generator(self.name)
        drawn = [random_direction(snapshot.parameters, generator) for _ in range(self.dimensions)]
        kept = snapshot.norm_parameters
        return [filter_normalised(d, snapshot.parameters, kept) for d in drawn], {}, 0

    def _eigenvectors(self, snapshot: Snapshot) -> tuple[list[Direction], dict[str, Any], int]:
        operator, top = snapshot.hessian, native_top(snapshot)
        if operator.shape[0] < self.dimensions:
            raise Missing(f"the model has one parameter: there are no {self.dimensions} directions")
        with defined():
            if top is not None and top.eigenvectors and top.k >= self.dimensions:
                found, hvps = snapshot.once(hessian_extremes), 0
            else:
                found = lanczos(
                    operator, self.dimensions, generator=snapshot.generator(f"{self.name} eigenvectors"),
                    tol=self.tol, max_iterations=self.max_iterations, vectors=True,
                )  # fmt: skip
                hvps = found.num_products
        assert found.top.vectors is not None
        vectors = found.top.vectors[:, : self.dimensions].to(operator.device, operator.dtype)
        uphill = torch.where(operator.gradient @ vectors < 0, -1.0, 1.0).to(vectors)
        details = {"eigenvalues": found.top.values[: self.dimensions].copy(),
                   "converged": bool(found.top.converged[: self.dimensions].all())}  # fmt: skip
        return [dict(operator.split(v)) for v in (vectors * uphill).unbind(1)], details, hvps

    def _updates(self, snapshot: Snapshot) -> list[Direction]:
        trajectory, parameters = snapshot.trajectory, snapshot.parameters
        last = _as_direction(trajectory.update, parameters)
        if self.dimensions == 1:
            return [last]
        if trajectory.previous_update is None:
            raise Missing("a plane of updates needs the last two training steps; only one was recorded")
        return [last, orthogonal_part(_as_direction(trajectory.previous_update, parameters), last)]


def random_direction(parameters: Mapping[str, Tensor], generator: torch.Generator) -> Direction:
    """Draw N(0, 1) in float64 on the CPU, so that every dtype and device sees the same direction."""
    return {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device, p.dtype)
        for name, p in parameters.items()
    }


def filter_normalised(direction: Direction, parameters: Mapping[str, Tensor], kept: Collection[str]) -> Direction:
    """Scale each filter d_f to ‖w_f‖; parameters of fewer than two dimensions, and those in `kept`, get zeros.

    A filter is a slice along the first dimension. One of zeros, in w or in d, gives zeros.

    Source: Li et al. 2018, §4.

    >>> w, d = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    >>> filter_normalised({"w": d, "b": torch.ones(2)}, {"w": w, "b": torch.ones(2)}, kept=())
    {'w': tensor([[0., 5.],
            [0., 0.]]), 'b': tensor([0., 0.])}
    """
    found = {}
    for name, d in direction.items():
        if d.ndim < 2 or name in kept:
            found[name] = torch.zeros_like(d)
            continue
        d_norms, w_norms = (t.flatten(1).norm(dim=1) for t in (d, parameters[name]))  # (F,)
        scale = torch.where(d_norms > 0, w_norms / d_norms, torch.zeros_like(d_norms))
        found[name] = d * scale.view(-1, *[1] * (d.ndim - 1))
    return found


def orthogonal_part(direction: Direction, axis: Direction) -> Direction:
    """Return what is left of a direction without its part along the axis."""
    share = _dot(direction, axis) / max(_dot(axis, axis), 1e-300)
    left = {name: d - share * axis[name] for name, d in direction.items()}
    if _length(left) <= 1e-6 * _length(direction):
        raise Missing("the last two updates lie on one line: they span no plane")
    return left


def grid(num_points: int, radius: float) -> np.ndarray:
    """Return −radius … radius in equal steps, (n,), exactly 0 in the middle and symmetric.

    >>> grid(5, 1.0).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    half = num_points // 2
    return radius * np.arange(-half, half + 1) / half


def losses_on_grid(
    batches: Sequence[BatchLoss],
    parameters: Mapping[str, Tensor],
    directions: Sequence[Direction],
    coordinates: np.ndarray,
    *,
    progress: Any = None,
) -> np.ndarray:
    """Return the mean loss at θ + Σ_i α_i d_i for every point of the grid, (n,) per direction.

    What is not finite stays as it is. `progress(done, total)` hears of every point.
    """
    losses = np.empty((len(coordinates),) * len(directions))
    for index in np.ndindex(losses.shape):
        point = [
            p + sum(float(coordinates[i]) * d[name] for i, d in zip(index, directions, strict=True) if coordinates[i])
            for name, p in parameters.items()
        ]
        with torch.no_grad():
            losses[index] = sum(batch.share * float(batch.mean(point)) for batch in batches)
        if progress is not None:
            progress(int(np.ravel_multi_index(index, losses.shape)) + 1, losses.size)
    return losses


def _as_direction(vector: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Direction:
    """Return a direction with zeros for the names that are left out, in the parameters' order.

    Raises:
        ValueError: for a name that is not a trainable parameter, with near names, or a wrong shape.
    """
    for name, value in vector.items():
        if name not in parameters:
            near = get_close_matches(name, parameters, 3, 0.3) or list(parameters)[:3]
            raise ValueError(
                f"expected names of trainable parameters, got {name!r} in the vectors of 'landscape'; "
                f"near names: {', '.join(near)}"
            )
        if value.shape != parameters[name].shape:
            raise ValueError(
                f"expected {name!r} of shape {tuple(parameters[name].shape)}, got {tuple(value.shape)} in the "
                "vectors of 'landscape'; take differences of parameters of this model"
            )
    return {
        name: vector[name].detach().to(p.device, p.dtype) if name in vector else torch.zeros_like(p)
        for name, p in parameters.items()
    }


def _dot(one: Direction, other: Direction) -> float:
    return sum(float((one[name].double() * other[name].double()).sum()) for name in one)


def _length(direction: Direction) -> float:
    return math.sqrt(_dot(direction, direction))
