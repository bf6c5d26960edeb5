"""The mean rise of the loss under Gaussian noise on the weights.

L layers (parameter tensors), n draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.batch_loss import mean_loss
from trainvitals.schema import Chart, Question, Reading, Scale


@dataclass
class NoiseSensitivity(Diagnostic):
    """The mean rise of the loss when every weight is disturbed by noise relative to its tensor's size.

    E_δ[L(θ + δ)] − L(θ), δ ~ N(0, (s · rms(θ_l))²) on every tensor θ_l, for each s. Each draw is used with
    both signs, (L(θ+δ) + L(θ−δ))/2: the slope cancels exactly and half the curvature along δ is left, to
    second order s²/2 Σ_l rms(θ_l)² tr H_ll. The same directions serve every s. The error is the standard
    error over draws. A tensor of zeros (a fresh bias) has no size and stays in place.

    Args:
        scales: the values of s.
        num_draws: n, directions; 2n forward passes for each s. Below about 15 the error is a rough guess.

    Source: Springer et al. 2025 (Overtrained Language Models Are Harder to Fine-Tune); relative to
    the tensor's size so that layers of unlike scale count alike.
    """

    name: ClassVar = "noise_sensitivity"
    title: ClassVar = "Sensitivity to noise on the weights"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How much the loss rises on average when the weights are jittered by a share of their size."
    formula: ClassVar = (
        r"\mathbb{E}_\delta[L(\theta+\delta)] - L(\theta),\ "
        r"\delta_l \sim \mathcal{N}(0, s^2 \operatorname{rms}(\theta_l)^2)"
    )
    unit: ClassVar = "loss"
    undefined: ClassVar = "all weights are zero; the loss at the perturbed weights is not finite"
    source: ClassVar = "Springer et al. 2025 (Overtrained Language Models Are Harder to Fine-Tune)"
    needs: ClassVar = Needs.OUTPUTS
    tier: ClassVar = Tier.FULL
    is_slow: ClassVar = True
    interval: ClassVar = 500
    chart: ClassVar = Chart.LINES
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "noise"
    passes: ClassVar = "two forward passes for each draw and scale"

    scales: Sequence[float] = (0.01, 0.03, 0.1)
    num_draws: int = 16

    def __post_init__(self) -> None:
        if not self.scales or not all(s > 0 for s in self.scales) or self.num_draws < 2:
            raise ValueError(
                f"expected positive scales and num_draws ≥ 2, got scales={self.scales}, num_draws={self.num_draws} "
                "in options of 'noise_sensitivity'; a standard error needs at least two draws"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the mean rise for each s, one key per s."""
        parameters, batches = snapshot.parameters, snapshot.batch_losses()
        sizes = {name: _rms(p) for name, p in parameters.items()}
        if not any(sizes.values()):
            raise Missing("all weights are zero: relative noise has no size")
        generator, start = snapshot.generator(self.name), snapshot.train.loss
        rises = np.empty((self.num_draws, len(self.scales)))
        for draw in range(self.num_draws):
            noise = _noise(parameters, sizes, generator)
            for column, s in enumerate(self.scales):
                both = [
                    mean_loss(batches, [p + sign * s * d for p, d in zip(parameters.values(), noise, strict=True)])
                    for sign in (1, -1)
                ]
                rises[draw, column] = sum(both) / 2 - start
        error = rises.std(0, ddof=1) / math.sqrt(self.num_draws)
        keys = tuple(f"s={s:g}" for s in self.scales)
        return Reading(rises.mean(0), error, keys=keys, details={"num_draws": self.num_draws})


def _rms(parameter: Tensor) -> float:
    return float(parameter.double().square().mean().sqrt()) if parameter.numel() else 0.0


def _noise(parameters: Mapping[str, Tensor], sizes: Mapping[str, float], generator: torch.Generator) -> list[Tensor]:
    """Draw in float64 on the CPU, so that every dtype and device sees the same noise."""
    return [
        (torch.randn(p.shape, generator=generator, dtype=torch.float64) * sizes[name]).to(p.device, p.dtype)
        for name, p in parameters.items()
    ]
