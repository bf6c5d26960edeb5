"""How large the gradient gets within a small ball around the weights.

P trainable parameters, ρ radius of the ball, n ascent steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.batch_loss import BatchLoss, mean_gradient
from trainvitals.diagnostics.hessian_spectrum import defined
from trainvitals.diagnostics.linalg.finite import finite
from trainvitals.diagnostics.linalg.hvp import HessianOperator
from trainvitals.diagnostics.sam import sam_step
from trainvitals.schema import Question, Reading


@dataclass
class FirstOrderFlatness(Diagnostic):
    """The largest gradient norm within distance ρ, times ρ: zero only where the loss is flat all around.

    ρ max_{‖δ‖ ≤ ρ} ‖∇L(θ + δ)‖. At a minimum it is at least ρ² λ1, to second order, and it bounds what the loss
    can rise within the ball. The maximum is looked for by n ascent steps of length ρ/n along
    ∇‖∇L‖ = H ∇L/‖∇L‖, the largest of the points visited counts: a lower bound on the definition.

    Args:
        rho: ρ, the radius; 0.05 as for `sam`, so that the two compare.
        num_steps: n, ascent steps; each costs a Hessian-vector product and a gradient.

    Source: Zhang et al. 2023 (CVPR, Gradient Norm Aware Minimization), Definition of first-order flatness; one
    ascent step as there.
    """

    name: ClassVar = "flatness.first_order"
    title: ClassVar = "First-order flatness"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The largest gradient within a small ball around the weights, times its radius; 0 is flat."
    formula: ClassVar = r"\rho \max_{\lVert\delta\rVert \le \rho} \lVert\nabla L(\theta + \delta)\rVert"
    unit: ClassVar = "loss"
    undefined: ClassVar = "the gradient is zero; gradient or product with the Hessian are not finite"
    source: ClassVar = "Zhang et al. 2023 (Gradient Norm Aware Minimization)"
    needs: ClassVar = Needs.HVP | Needs.GRADIENT
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200

    rho: float = 0.05
    num_steps: int = 1

    def __post_init__(self) -> None:
        if not self.rho > 0 or self.num_steps < 1:
            raise ValueError(
                f"expected rho > 0 and num_steps ≥ 1, got rho={self.rho}, num_steps={self.num_steps} in options of "
                "'flatness.first_order'; leave them out for 0.05 and 1"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return ρ times the largest gradient norm seen."""
        batches, point = snapshot.batch_losses(), list(snapshot.parameters.values())
        norms: list[float] = []
        with defined():
            operator: HessianOperator | None = snapshot.hessian
            for _ in range(self.num_steps):
                operator = operator or _hessian_at(snapshot, batches, point)
                gradient = finite(operator.gradient)
                norms.append(float(torch.linalg.vector_norm(gradient.double())))
                if not norms[-1] > 0:
                    raise Missing("the gradient of the train probe is zero: it has no direction")
                ascent = list(operator.split(finite(operator @ (gradient / norms[-1]))).values())
                if not any(bool(a.any()) for a in ascent):  # no curvature along the gradient: it is as large ahead
                    break
                point = [p + e for p, e in zip(point, sam_step(ascent, self.rho / self.num_steps), strict=True)]
                operator = None
            else:
                norms.append(_norm(mean_gradient(batches, point)))
        return Reading(self.rho * max(norms), hvps=min(len(norms), self.num_steps),
                       details={"rho": self.rho, "num_steps": self.num_steps})  # fmt: skip


def _hessian_at(snapshot: Snapshot, batches: Sequence[BatchLoss], point: Sequence[Tensor]) -> HessianOperator:
    return HessianOperator(batches, dict(zip(snapshot.parameters, point, strict=True)), snapshot.products)


def _norm(gradient: Sequence[Tensor]) -> float:
    """Return the norm over all parameters.

    Raises:
        NonFiniteProduct: if it holds NaN or infinity.
    """
    return float(torch.linalg.vector_norm(finite(torch.cat([g.reshape(-1) for g in gradient])).double()))
