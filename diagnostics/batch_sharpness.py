"""The curvature of each mini-batch's loss along its own gradient.

N samples of the train probe, B samples of a mini-batch, P trainable parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.hessian_spectrum import defined
from trainvitals.diagnostics.linalg.finite import finite
from trainvitals.diagnostics.linalg.hvp import HessianOperator
from trainvitals.diagnostics.linalg.products import Products
from trainvitals.schema import Question, Reading, Scale


@dataclass
class BatchSharpness(Diagnostic):
    """The mean curvature of a mini-batch's loss along its own gradient: what sits at 2/η under SGD.

    E_B[ g_BᵀH_B g_B / ‖g_B‖² ] over mini-batches B of the train probe, g_B and H_B gradient and Hessian of
    the batch's loss. The probe is shuffled by a seed and cut into ⌊N/B⌋ batches, without replacement; the
    error is the standard error over them. Give the batch size of training: the value depends on it.

    Args:
        batch_size: B. 32 unless told: the watcher does not know the loader's.
        max_batches: most mini-batches; each costs a forward pass and one Hessian-vector product on it.

    Source: Andreyev and Beneventano 2024 (Edge of Stochastic Stability).
    """

    name: ClassVar = "batch_sharpness"
    title: ClassVar = "Batch sharpness"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "Curvature of mini-batch losses along their own gradients; under SGD it settles at 2/η."
    formula: ClassVar = r"\mathbb{E}_B\left[g_B^\top H_B\, g_B / \lVert g_B\rVert^2\right]"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = "fewer than two mini-batches in the train probe; a mini-batch's gradient is zero"
    source: ClassVar = "Andreyev and Beneventano 2024 (Edge of Stochastic Stability)"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200
    scale: ClassVar = Scale.SYMLOG

    batch_size: int = 32
    max_batches: int = 16

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_batches < 2:
            raise ValueError(
                f"expected batch_size ≥ 1 and max_batches ≥ 2, got batch_size={self.batch_size}, "
                f"max_batches={self.max_batches} in options of 'batch_sharpness'; a standard error needs two batches"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the mean over mini-batches and its standard error."""
        batches = snapshot.batch_losses(self.batch_size)[: self.max_batches]
        parameters, products = snapshot.parameters, snapshot.products
        with defined():
            found = np.array([curvature_along_gradient(batch, parameters, products) for batch in batches])
        return Reading(
            float(found.mean()), float(found.std(ddof=1)) / math.sqrt(len(found)), hvps=len(found),
            details={"batch_size": self.batch_size, "num_batches": len(found), "batches": found},
        )  # fmt: skip


def curvature_along_gradient(
    batch: BatchLoss, parameters: Mapping[str, Tensor], products: Products | None = None
) -> float:
    """Return gᵀHg/‖g‖² of one batch's mean loss.

    Raises:
        Missing: if the gradient is zero.
        NonFiniteProduct: if gradient or product hold NaN or infinity.
    """
    operator = HessianOperator([replace(batch, share=1.0)], parameters, products)
    g = finite(operator.gradient)
    norm = torch.linalg.vector_norm(g)
    if not norm > 0:
        raise Missing("the gradient of a mini-batch is zero: it has no direction")
    unit = g / norm
    return float(torch.dot(unit.double(), finite(operator @ unit).double()))
