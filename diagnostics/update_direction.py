"""Where the last step went: how far it turned the weights, how much along them, and how much was weight decay.

Legend: L parameter tensors, θ_l one of them before the step, Δθ_l the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale


class Step(NamedTuple):
    """One tensor's step beside the weights that it changed; all that angles and shares are made of."""

    weight: float  # ‖θ‖ before the step
    update: float  # ‖Δθ‖
    dot: float  # ⟨θ, Δθ⟩

    @property
    def along(self) -> float:
        """⟨Δθ, θ⟩/‖θ‖, the signed length of the step along the weights."""
        return self.dot / self.weight

    @property
    def cosine(self) -> float:
        """cos(Δθ, θ), in [−1, 1]."""
        return max(-1.0, min(1.0, self.along / self.update))

    @property
    def angle(self) -> float:
        """The angle in radians between θ and θ + Δθ, exact where arccos would lose small angles to rounding."""
        across = math.sqrt(max(0.0, self.update**2 - self.along**2))
        return math.atan2(across, self.weight + self.along)


def step_of(now: Tensor, update: Tensor) -> Step:
    """Return one tensor's step, in float64.

    >>> step = step_of(now=torch.tensor([1.0, 1.0]), update=torch.tensor([0.0, 1.0]))
    >>> round(math.degrees(step.angle), 9), step.cosine
    (45.0, 0.0)
    """
    delta = update.double().reshape(-1)
    before = now.double().reshape(-1) - delta
    weight, length = float(torch.linalg.vector_norm(before)), float(torch.linalg.vector_norm(delta))
    return Step(weight, length, float(before @ delta))


def steps(snapshot: Snapshot) -> dict[str, Step]:
    """Return the last step of every trainable tensor; several diagnostics share it through `snapshot.once`."""
    now, update = snapshot.parameters, snapshot.trajectory.update
    return {name: step_of(now[name], update[name]) for name in update if name in now}


def _by_tensor(
    found: Mapping[str, Step], function: Callable[[str, Step], float], *, needs_update: bool = True
) -> Reading:
    """Return `function` of each step that has one; `details["left_out"]` says why the others have none."""
    values: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, step in found.items():
        if not all(map(math.isfinite, step)):
            left_out[name] = "it holds NaN or Inf"
        elif step.weight == 0:
            left_out[name] = "it was 0 before the step"
        elif needs_update and step.update == 0:
            left_out[name] = "the step did not change it"
        else:
            values[name] = function(name, step)
    return by_layer(values, left_out, "the step changed no tensor")


@dataclass
class UpdateAngle(Diagnostic):
    """The angle between θ_l before and after the last training step, for each parameter tensor.

    Value (L,) in radians, in [0, π], in the order of the parameters; exact up to the rounding of
    θ(t) − θ(t−1). A tensor that was zero before the step has none: `details["left_out"]` names it. Where a
    normalisation follows, this turn is all that the step does to the function. No options.

    Source: Wan et al. 2021 (angular update); Kosson, Messmer, Jaggi 2024 (average angular update).
    """

    name: ClassVar = "update.angle"
    title: ClassVar = "Angle of the update per layer"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "How far the last step turned each parameter tensor."
    formula: ClassVar = r"\angle(\theta_l(t-1), \theta_l(t))"
    unit: ClassVar = "rad"
    undefined: ClassVar = "Before the first training step, outside a watched run, or when every tensor was zero."
    source: ClassVar = (
        "Wan, Zhu, Zhang, Sun 2021, Spherical Motion Dynamics (angular update); "
        "Kosson, Messmer, Jaggi 2024, Rotational Equilibrium"
    )
    needs: ClassVar = Needs.TRAJECTORY | Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 20
    chart: ClassVar = Chart.HEATMAP
    scale: ClassVar = Scale.LOG
    keys: ClassVar = "parameter"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one angle per parameter tensor."""
        return _by_tensor(snapshot.once(steps), lambda _, step: step.angle, needs_update=False)


@dataclass
class UpdateRadial(Diagnostic):
    """|cos(Δθ_l, θ_l)|: which share of the last step's length went along the weights, not across them.

    Value (L,) in [0, 1], in the order of the parameters; θ before the step. `details["cosine"]` is the same
    with its sign: above 0 the step lengthened the weights, below 0 it shortened them. A tensor that was zero
    or was not changed has none: `details["left_out"]` names it. No options.

    Source: Heo et al. 2021 (AdamP): steps along weights that a normalisation follows grow the norm and
    change nothing else.
    """

    name: ClassVar = "update.radial"
    title: ClassVar = "Radial share of the update per layer"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "Whether the last step only stretched or shrank the weights (1) or turned them (0)."
    formula: ClassVar = (
        r"\lvert\langle\Delta\theta_l, \theta_l\rangle\rvert / (\lVert\Delta\theta_l\rVert\lVert\theta_l\rVert)"
    )
    undefined: ClassVar = "Before the first training step, outside a watched run, or when nothing moved."
    source: ClassVar = "Heo et al. 2021, AdamP: Slowing Down the Slowdown for Momentum Optimizers, section 2"
    needs: ClassVar = Needs.TRAJECTORY | Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 20
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "parameter"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one share per parameter tensor."""
        found = snapshot.once(steps)
        reading = _by_tensor(found, lambda _, step: abs(step.cosine))
        cosines = torch.tensor([found[name].cosine for name in reading.keys], dtype=torch.float64)
        return Reading(reading.value, keys=reading.keys, details={**reading.details, "cosine": cosines})


@dataclass
class DecayShare(Diagnostic):
    """How much of the last step is weight decay, if decay takes η·w·θ_l off the weights.

    `share`: η w ‖θ_l‖/‖Δθ_l‖; 0.1 means that decay is a tenth as long as the step. `cosine`:
    cos(−η w θ_l, Δθ_l): 1 says that the step is nothing but decay, below 0 that the gradient outgrows it. Both
    (L,) over the tensors whose group has decay, with η and w as they stand in the group after the step.

    Decoupled decay (AdamW, Muon, Adafactor) and plain SGD's L2 penalty subtract exactly η·w·θ. Elsewhere the
    penalty goes through the gradient: with momentum it is spread over later steps, in Adam, RMSprop and
    Adagrad it is divided by the gradient's own size, so that the actual decay of a weight is another one.
    `details["decay"]` says which of the three holds. No options.

    Source: Loshchilov and Hutter 2019 (Decoupled Weight Decay Regularization).
    """

    name: ClassVar = "update.decay_share"
    title: ClassVar = "Weight decay in the update"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "How much of the last step is weight decay."
    formula: ClassVar = r"\eta w\lVert\theta_l\rVert / \lVert\Delta\theta_l\rVert"
    undefined: ClassVar = (
        "Before the first training step, outside a watched run, without weight decay, or when nothing moved."
    )
    source: ClassVar = "Loshchilov, Hutter 2019, Decoupled Weight Decay Regularization, section 2"
    needs: ClassVar = Needs.TRAJECTORY | Needs.PARAMETERS | Needs.OPTIMIZER_STATE
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 20
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "parameter"
    parts: ClassVar = {
        "share": Part(
            "Weight decay over the update per layer", "Length of the decay over the length of the last step.",
            scale=Scale.LOG,
            references=(ReferenceLine("as long as the step", 1.0, "by the definition"),),
        ),
        "cosine": Part(
            "Cosine of weight decay and update per layer",
            "Whether the last step went where weight decay pulls (1), across it (0) or against it (−1).",
            formula=r"\cos(-\eta w\theta_l, \Delta\theta_l)",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return share and cosine for each parameter tensor that decays."""
        decay, words = _decay(snapshot)
        if not decay:
            raise Missing("the optimiser has no weight decay")
        found = {name: step for name, step in snapshot.once(steps).items() if name in decay}
        readings = {
            "share": or_missing(lambda: _by_tensor(found, lambda name, step: decay[name] * step.weight / step.update)),
            "cosine": or_missing(lambda: _by_tensor(found, lambda _, step: -step.cosine)),
        }
        return {
            part: Reading(reading.value, keys=reading.keys, missing=reading.missing,
                          details={**reading.details, "decay": words})
            for part, reading in readings.items()
        }  # fmt: skip


# Their `weight_decay` takes η·w·θ off the weights, apart from the gradient.
_DECOUPLED = ("AdamW", "Muon", "Adafactor")


def _decay(snapshot: Snapshot) -> tuple[dict[str, float], str]:
    """Return η·w by parameter name where it is above zero, and in words how the optimiser applies it."""
    optimizer = snapshot.optimizer
    decay: dict[str, float] = {}
    kinds: set[str] = set()
    for group in optimizer.groups:
        strength = float(group.options.get("lr", 0.0)) * float(group.options.get("weight_decay", 0.0))
        if strength > 0:
            decay |= dict.fromkeys(group.names, strength)
            kinds.add(_kind(optimizer.kind, group.options))
    return decay, "; ".join(sorted(kinds))


def _kind(optimizer: str, options: Mapping[str, object]) -> str:
    if optimizer in _DECOUPLED or options.get("decoupled_weight_decay"):
        return "decoupled"
    if optimizer == "SGD":
        return "L2 penalty, spread over later steps by momentum" if options.get("momentum") else "L2 penalty, exact"
    return f"L2 penalty inside {optimizer}: rescaled with the gradient"
