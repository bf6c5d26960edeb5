"""How many entries of the gradient are as good as zero."""

from dataclasses import dataclass

import torch

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Tier
from trainvitals.schema import Question, Reading


@dataclass
class GradientSparsity(Diagnostic):
    """Share of gradient entries smaller than `fraction` of the largest.

    Missing when the gradient is zero everywhere.

    Args:
        fraction: of the largest entry; our choice, no published value.
    """

    name = "example.sparsity"
    title = "Gradient sparsity"
    question = Question.GRADIENTS
    summary = "Share of gradient entries that are small beside the largest."
    formula = r"\frac{1}{P}\,\#\{p : |g_p| < f \max_q |g_q|\}"
    unit = "share of entries"
    undefined = "The gradient is zero everywhere."
    source = "An example of TrainVitals' documentation."
    needs = Needs.GRADIENT
    tier = Tier.ON_REQUEST
    interval = 100

    fraction: float = 1e-3

    def measure(self, snapshot):
        """Return the share, in [0, 1]."""
        flat = torch.cat([g.abs().flatten() for g in snapshot.gradient.values()])  # (P,)
        if not flat.max() > 0:
            raise Missing("the gradient is zero everywhere")
        return Reading((flat < self.fraction * flat.max()).double().mean().item())
