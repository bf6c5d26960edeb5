"""How strong the gradient of each parameter is beside its scatter over samples.

Legend: N samples, P parameters, ḡ_p and s²_p mean and unbiased variance of the p-th entry of the samples' gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.gradient_alignment import finite_sums
from trainvitals.schema import Question, Reading, ReferenceLine, Scale

# Σ g² − N ḡ² below this share of Σ g² is rounding of gradients in float32, no scatter.
_ROUNDING = 1e-12
# So is Σ g² of a parameter below this share of the largest: float32's ε², as of the bias of attention's keys, whose
# gradient is zero by algebra.
_SMALLEST = torch.finfo(torch.float32).eps ** 2


def signal_to_noise(total: Tensor, squares: Tensor, num_samples: int) -> Tensor:
    """Return ḡ²_p/s²_p of every parameter whose gradient and its scatter are more than rounding, (Q,), Q ≤ P.

    Args:
        total: (P,) Σ g_i.
        squares: (P,) Σ g_i², entry by entry.
        num_samples: N, at least 2.

    >>> signal_to_noise(torch.tensor([4.0, 0.0]), torch.tensor([10.0, 0.0]), 2)  # gradients 3 and 1; and none
    tensor([2.], dtype=torch.float64)
    """
    mean, squares = total.double() / num_samples, squares.double()
    scatter = squares - num_samples * mean.square()
    kept = (scatter > _ROUNDING * squares) & (squares > _SMALLEST * squares.max())
    return mean[kept].square() * (num_samples - 1) / scatter[kept]


@dataclass
class GradientSignal(Diagnostic):
    """GSNR: mean over parameters of ḡ²_p/s²_p, squared mean over variance of the samples' gradients.

    Value ≥ 0, exact on the probe: large where samples agree, so that a step on some helps others. A parameter
    whose gradient does not vary, or is zero up to rounding beside the largest (1e-7 of it), has none:
    `details["num_left_out"]` counts them. Gradients of pure
    noise give about 1/N, not 0: for normal noise (N − 1)/(N(N − 3)), `details["noise_level"]`, N above 3. The
    mean follows its largest terms; `details["median"]` does not. No options.

    Source: Liu et al. 2020 (Understanding Why Neural Networks Generalize Well Through GSNR of Parameters).
    """

    name: ClassVar = "grad.gsnr"
    title: ClassVar = "Gradient signal-to-noise ratio (GSNR)"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "How strong the mean gradient of a parameter is beside its scatter over samples."
    formula: ClassVar = r"\operatorname*{mean}_p\ \bar g_p^2 / \operatorname{Var}_i(g_{i,p})"
    undefined: ClassVar = "Fewer than two samples, a gradient with NaN or Inf, or no parameter's gradient varies."
    source: ClassVar = (
        "Liu, Bai, Jiang, Chen, Wang 2020, Understanding Why Neural Networks Generalize Well Through GSNR of "
        "Parameters, definition 1"
    )
    needs: ClassVar = Needs.PER_SAMPLE_GRADIENTS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 100
    scale: ClassVar = Scale.LOG
    references: ClassVar = (ReferenceLine("signal as strong as noise", 1.0, "by the definition"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the mean ratio."""
        sums = finite_sums(snapshot)
        N = sums.num_samples
        if N < 2:
            raise Missing(f"a variance needs at least 2 samples, the probe has {N}")
        ratios = signal_to_noise(sums.sum, sums.sum_of_squares, N)
        if len(ratios) == 0:
            raise Missing("no parameter's gradient varies between samples")
        details = {"num_left_out": sums.num_parameters - len(ratios), "median": float(ratios.median())}
        if N > 3:
            details["noise_level"] = (N - 1) / (N * (N - 3))
        return Reading(float(ratios.mean()), details=details)
