"""Gradients that stand out from the ones before them: the whole, and single entries beside Adam's average.

Legend: g the gradient of the last training step, after the loop's own clipping, v Adam's running mean of g² before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.schema import Question, Reading, ReferenceLine, Scale

_KINDS = ("Adam", "AdamW")


def spiked(gradient: Tensor, second_moment: Tensor, beta2: float, threshold: float) -> int:
    """Return how many entries have g² > threshold · v, v the running mean of squares before g entered it.

    Args:
        gradient: g, as the optimiser took it.
        second_moment: β₂v + (1 − β₂)g², as the optimiser's state has it after the step.
        beta2: β₂ in (0, 1).
        threshold: the limit.

    >>> import torch
    >>> v, g = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([100.0, 1.0, 0.0])
    >>> spiked(g, 0.999 * v + 0.001 * g**2, 0.999, 5000.0)
    1
    """
    squared = gradient.double().square()
    before = (second_moment.double() - (1 - beta2) * squared) / beta2
    return int((squared > threshold * before.clamp(min=0)).sum())


@dataclass
class GradientSpike(Diagnostic):
    """How far the last training step's gradient stands out from the ones before it.

    `norm`: ‖g‖ over the largest ‖g‖ of the last `window` measurements, above 1 where it is larger than all of them.
    `entries`: share of weights with g² above `threshold` times Adam's running mean of g² before this step, the
    entries that SPAM takes for spikes. g is the gradient that the optimiser took, so after the loop's own clipping:
    clipped steps cannot be seen here. It remembers the norms that it has measured; only steps at which it is due
    count. Details of `norm`: `gradient_norm` and `largest_before`; of `entries`: `num_spiked`.

    Args:
        window: earlier measurements that the norm is compared with.
        threshold: of g²/v; SPAM's default.
    """

    window: int = 50
    threshold: float = 5000.0
    _norms: list[float] = field(default_factory=list, init=False, repr=False)

    name = "grad.spike"
    title = "Gradient spikes"
    question = Question.STABILITY
    summary = "Whether the last gradient, or single entries of it, stand out from the ones before."
    formula = r"\lVert g_t\rVert \big/ \max_{s<t} \lVert g_s\rVert"
    undefined = (
        "Outside a watched run or before its first step; a gradient with NaN or Inf. Norm: the first measurement, or "
        "only gradients of zero before. Entries: another optimiser than torch's Adam and AdamW, or its first step, "
        "which has no average before it."
    )
    source = (
        "Huang et al. 2025, SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training (entries, threshold); "
        "Huang et al. 2025, Stable-SPAM (norms beside their history)"
    )
    needs = Needs.TRAJECTORY | Needs.OPTIMIZER_STATE | Needs.PARAMETERS
    tier = Tier.FULL
    interval = 10
    parts = {
        "norm": Part(
            "Gradient norm beside the largest before",
            "How large the last gradient is beside the largest of the measurements before: above 1 is a record.",
            scale=Scale.LOG, references=(ReferenceLine("as large as the largest", 1.0, "by the definition"),),
        ),
        "entries": Part(
            "Share of weights with a gradient spike",
            "How many weights had a gradient far above Adam's average for them, which it then spoils.",
            unit="share of weights", formula=r"\frac{1}{P}\,\#\{p : g_p^2 > 5000\, v_p\}",
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        if type(self.window) is not int or self.window < 1 or not self.threshold > 0:
            raise ValueError(
                f"expected a window of at least 1 and a threshold above 0, got window={self.window!r} and "
                f"threshold={self.threshold!r} in options of 'grad.spike'; leave them out for 50 and 5000"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the norm beside earlier ones, and the share of entries that spike."""
        gradient = snapshot.trajectory.gradient
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradient.values()))
        if not math.isfinite(norm):
            raise Missing("the gradient of the last step holds NaN or Inf")
        earlier = list(self._norms)
        self._norms = [*earlier, norm][-self.window :]
        return {
            "norm": or_missing(lambda: _beside(norm, earlier)),
            "entries": or_missing(lambda: self._entries(snapshot, gradient)),
        }

    def _entries(self, snapshot: Snapshot, gradient: Mapping[str, Tensor]) -> Reading:
        optimizer = snapshot.optimizer
        if optimizer.kind not in _KINDS:
            raise Missing(f"the optimiser is {optimizer.kind}, not torch's Adam or AdamW")
        num_spiked = num_entries = 0
        for group in optimizer.groups:
            for name in group.names:
                state = optimizer.state.get(name, {})
                if name not in gradient or float(state.get("step", 0)) < 2:
                    continue
                taken = _as_taken(gradient[name], name, group.options, snapshot)
                num_spiked += spiked(taken, state["exp_avg_sq"], float(group.options["betas"][1]), self.threshold)
                num_entries += taken.numel()
        if not num_entries:
            raise Missing(f"{optimizer.kind} has no average of earlier gradients yet: it needs two steps")
        return Reading(num_spiked / num_entries, details={"num_spiked": num_spiked})


def _beside(norm: float, earlier: list[float]) -> Reading:
    largest = max(earlier, default=0.0)
    if largest == 0:
        raise Missing("there is no earlier gradient that is not zero to compare with")
    return Reading(norm / largest, details={"gradient_norm": norm, "largest_before": largest})


def _as_taken(gradient: Tensor, name: str, options: Mapping[str, Any], snapshot: Snapshot) -> Tensor:
    """Return the gradient with the weight decay that Adam, unlike AdamW, adds to it."""
    decay = float(options.get("weight_decay", 0.0))
    if decay == 0 or options.get("decoupled_weight_decay") or snapshot.optimizer.kind == "AdamW":
        return gradient
    sign = -1.0 if options.get("maximize") else 1.0
    before = snapshot.parameters[name].double() - snapshot.trajectory.update[name].double()
    return sign * gradient.double() + decay * before
