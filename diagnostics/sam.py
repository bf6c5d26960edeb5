"""How much the loss rises within a small ball around the weights: SAM, and its scale-invariant form.

P trainable parameters, ρ radius of the ball, n ascent steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.batch_loss import mean_gradient, mean_loss
from trainvitals.diagnostics.linalg.block import matching_names
from trainvitals.schema import Question, Reading

NORM = "norm"  # the parameters of normalisation layers


@dataclass
class Sam(Diagnostic):
    """The rise of the loss at distance ρ along the gradient: SAM's measure of sharpness.

    L(θ + ε) − L(θ), ε = ρ g/‖g‖, with the gradient of the whole train probe. With n > 1 steps, ε is a
    sum of n steps of length ρ/n, each along the gradient at the point reached, so ‖ε‖ ≤ ρ. One step is
    the first-order value of the maximum over the ball; the true maximum is at least any of them.

    Args:
        rho: ρ, the radius; 0.05 is Foret et al.'s default (§3.1).
        num_steps: n, ascent steps; the first uses the gradient at θ, every further one costs a backward pass.
        only: move these parameters alone, with ‖g‖ over them: "norm" for those of normalisation layers, or a
            pattern of names with `*`, `?` and `[]`, such as "layers.3.*" for one layer.

    Source: Foret et al. 2021 (ICLR), §2, with more inner steps as in its appendix; normalisation layers alone,
    Mueller et al. 2023 (Normalization Layers Are All That Sharpness-Aware Minimization Needs).
    """

    name: ClassVar = "sam"
    title: ClassVar = "SAM sharpness"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How much the loss rises when the weights take a step of fixed length uphill."
    formula: ClassVar = r"L(\theta + \rho\, g/\lVert g\rVert) - L(\theta)"
    unit: ClassVar = "loss"
    undefined: ClassVar = "the gradient is zero; the loss at the perturbed weights is not finite"
    source: ClassVar = "Foret et al. 2021, §2"
    needs: ClassVar = Needs.GRADIENT | Needs.OUTPUTS
    tier: ClassVar = Tier.FULL
    is_slow: ClassVar = True
    interval: ClassVar = 200

    rho: float = 0.05
    num_steps: int = 1
    only: str | None = None

    def __post_init__(self) -> None:
        if not self.rho > 0 or self.num_steps < 1:
            raise ValueError(
                f"expected rho > 0 and num_steps ≥ 1, got rho={self.rho}, num_steps={self.num_steps} in options of "
                "'sam'; leave them out for 0.05 and 1"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the rise of the loss."""
        batches, start = snapshot.batch_losses(), list(snapshot.parameters.values())
        moving = chosen(snapshot, self.only)
        gradient, point = list(snapshot.gradient.values()), start
        for index in range(self.num_steps):
            if index:
                gradient = mean_gradient(batches, point)
            step = sam_step([g if m else torch.zeros_like(g) for g, m in zip(gradient, moving, strict=True)],
                            self.rho / self.num_steps)  # fmt: skip
            point = [p + e for p, e in zip(point, step, strict=True)]
        rise = mean_loss(batches, point) - snapshot.train.loss
        return Reading(rise, details=_with_only({"rho": self.rho, "num_steps": self.num_steps}, self.only))


@dataclass
class Asam(Diagnostic):
    """The rise of the loss at distance ρ uphill, with distances measured relative to each weight's size.

    L(θ + ε) − L(θ), ε = ρ T² g/‖T g‖, T = diag(|θ| + η₀): the maximum, to first order, over ‖T⁻¹ε‖ ≤ ρ.
    Scaling one layer up and the next one down changes SAM's value and, with η₀ = 0, not this one.

    Args:
        rho: ρ, the radius in relative units; 0.5 is Kwon et al.'s choice for CIFAR-10 (§5).
        eta: η₀, keeps weights at zero movable; 0.01 as theirs (§5). With 0 the value is scale-invariant exactly.
        only: move these parameters alone, as in `sam`.

    Source: Kwon et al. 2021 (ICML), §4, element-wise operator.
    """

    name: ClassVar = "asam"
    title: ClassVar = "Adaptive SAM sharpness"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How much the loss rises when every weight moves uphill in proportion to its size."
    formula: ClassVar = r"L(\theta + \rho\, T^2 g/\lVert T g\rVert) - L(\theta),\ T = |\theta| + \eta_0"
    unit: ClassVar = "loss"
    undefined: ClassVar = "the gradient is zero; the loss at the perturbed weights is not finite"
    source: ClassVar = "Kwon et al. 2021, §4"
    needs: ClassVar = Needs.GRADIENT | Needs.OUTPUTS
    tier: ClassVar = Tier.FULL
    is_slow: ClassVar = True
    interval: ClassVar = 200

    rho: float = 0.5
    eta: float = 0.01
    only: str | None = None

    def __post_init__(self) -> None:
        if not self.rho > 0 or self.eta < 0:
            raise ValueError(
                f"expected rho > 0 and eta ≥ 0, got rho={self.rho}, eta={self.eta} in options of 'asam'; "
                "leave them out for 0.5 and 0.01"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the rise of the loss."""
        start = list(snapshot.parameters.values())
        scales = [
            p.abs() + self.eta if moves else torch.zeros_like(p)
            for p, moves in zip(start, chosen(snapshot, self.only), strict=True)
        ]  # T, and 0 for what stays
        scaled = [t * g for t, g in zip(scales, snapshot.gradient.values(), strict=True)]
        step = [t * e for t, e in zip(scales, sam_step(scaled, self.rho), strict=True)]
        point = [p + e for p, e in zip(start, step, strict=True)]
        rise = mean_loss(snapshot.batch_losses(), point) - snapshot.train.loss
        return Reading(rise, details=_with_only({"rho": self.rho, "eta": self.eta}, self.only))


def chosen(snapshot: Snapshot, only: str | None) -> list[bool]:
    """Return for each parameter whether it is among those that `only` names; all of them for None.

    Raises:
        Missing: for "norm", if the model has no normalisation layers that train.
        ValueError: if the pattern matches no parameter, with near names.
    """
    names: Iterable[str] = snapshot.parameters
    if only == NORM:
        names = snapshot.norm_parameters
        if not names:
            raise Missing("the model has no normalisation layers with trainable parameters")
    elif only is not None:
        names = matching_names(snapshot.parameters, only)
    wanted = set(names)
    return [name in wanted for name in snapshot.parameters]


def _with_only(details: dict[str, object], only: str | None) -> dict[str, object]:
    return details if only is None else {**details, "only": only}


def sam_step(gradient: Sequence[Tensor], length: float) -> list[Tensor]:
    """Return a step of this length along the gradient, whose norm is over all parameters together.

    Raises:
        Missing: if the gradient is zero or not finite.
    """
    norm = float(torch.stack([g.double().square().sum() for g in gradient]).sum().sqrt())
    if norm == 0:
        raise Missing("the gradient of the train probe is zero: there is no direction of ascent")
    if not norm < float("inf"):
        raise Missing("the gradient of the train probe is not finite")
    return [g * (length / norm) for g in gradient]
