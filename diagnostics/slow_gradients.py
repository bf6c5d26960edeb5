"""How much of the training gradient is slow: the same from step to step.

Legend: P trainable parameters, T measurements so far, w_i the weight of the i-th of them in the average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Question, Reading


@dataclass
class SlowGradients(Diagnostic):
    """‖EMA(g)‖²/EMA(‖g‖²) over the measured training steps: the share of the gradient's energy that is slow.

    Value in [0, 1], exact: 1 if every gradient was the same, and Σ w_i² on average if they have nothing in common;
    `details["chance"]` is that level, and only what lies above it is slow. Both averages take the training loop's
    own mini-batch gradients at the steps at which this is measured, with weights decay^(steps ago), normalised
    from the start. So sparse measurements see a coarser average, with a higher level of chance: with decay 0.98,
    0.010 at every step and 0.10 at every tenth. Kept between measurements: one copy of the gradient; a run that
    is taken up again starts anew.

    Args:
        decay: of a gradient's weight per training step, in (0, 1); 0.98 as in Grokfast's experiments.

    Raises:
        ValueError: if `decay` is not between 0 and 1.

    Source: Lee et al. 2024 (Grokfast): slow gradients are amplified to hasten generalisation.
    """

    name: ClassVar = "grad.slow_share"
    title: ClassVar = "Slow share of the gradient"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "How much of the training gradients' energy is common to recent steps."
    formula: ClassVar = r"\lVert \operatorname{EMA}(g)\rVert^2 / \operatorname{EMA}(\lVert g\rVert^2)"
    undefined: ClassVar = "Before the second measured step, outside a watched run; gradients are zero or not finite."
    source: ClassVar = "Lee, Kang, Kim, Lee 2024, Grokfast: Accelerated Grokking by Amplifying Slow Gradients"
    needs: ClassVar = Needs.TRAJECTORY
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 20

    decay: float = 0.98
    _mean: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)  # Σ w_i g_i, unnormalised
    _energy: float = field(default=0.0, init=False, repr=False)  # Σ w_i ‖g_i‖²
    _weight: float = field(default=0.0, init=False, repr=False)  # Σ w_i
    _squares: float = field(default=0.0, init=False, repr=False)  # Σ w_i²
    _step: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.0 < self.decay < 1.0:
            raise ValueError(f"expected 0 < decay < 1, got {self.decay} in options of 'grad.slow_share'; try 0.98")

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the share, and take this step's gradient into the average."""
        gradient = snapshot.trajectory.gradient
        energy = sum(float(g.double().square().sum()) for g in gradient.values())
        if not energy < float("inf"):
            raise Missing("the training gradient holds NaN or Inf; this step is left out of the average")
        first = self._step is None
        self._add(gradient, energy, snapshot.step)
        if first:
            raise Missing("one gradient has nothing to be slow against: a second measured step is needed")
        if self._energy == 0:
            raise Missing("the training gradients are zero")
        slow = sum(float(mean.double().square().sum()) for mean in self._mean.values())
        return Reading(
            min(1.0, slow / (self._weight * self._energy)), details={"chance": self._squares / self._weight**2}
        )  # fmt: skip

    def _add(self, gradient: Mapping[str, Tensor], energy: float, step: int) -> None:
        d = 1.0 if self._step is None else self.decay ** (step - self._step)
        self._step = step
        for mean in self._mean.values():
            mean.mul_(d)
        for name, g in gradient.items():  # a parameter without a gradient counts as zero
            wide = g.float() if g.dtype in (torch.bfloat16, torch.float16) else g
            self._mean[name] = self._mean[name] + wide if name in self._mean else wide.clone()
        self._energy = d * self._energy + energy
        self._weight = d * self._weight + 1
        self._squares = d * d * self._squares + 1
