"""By how much the next step of SGD is expected to widen the generalization gap.

Legend: N samples of the probe, n samples in the training set, η learning rate, β momentum, τ dampening.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, OptimizerView, Snapshot, Tier
from trainvitals.diagnostics.gradient_alignment import finite_sums, of_all_samples, without_each_block, without_error
from trainvitals.diagnostics.gradient_sums import GradientSums
from trainvitals.diagnostics.jackknife import jackknife_error
from trainvitals.schema import Question, Reading, Scale


def traces(sums: GradientSums) -> dict[str, float]:
    """Return the trace of the unbiased covariance of per-sample gradients, tensor by tensor.

    >>> sums = GradientSums({"w": torch.Size([2])})
    >>> sums.add(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    >>> traces(sums)
    {'w': 2.0}
    """
    N = sums.num_samples
    scatter: Tensor = (sums.sum_of_squares - sums.sum.square() / N).clamp(min=0) / (N - 1)  # (P,)
    return {name: float(part.sum()) for name, part in sums.split(scatter).items()}


@dataclass
class PredictedGap(Diagnostic):
    """η tr Cov(g_i)/n: how much held-out minus train loss is expected to grow in one step of SGD.

    In expectation over training sets of n samples and to leading order in η, a step along the train gradient
    lowers the train loss more than the population's by η tr Cov(g_i)/n: the gradient's noise is fitted too. The
    covariance is the unbiased one of the probe's N samples, so the probe should be drawn from the training set.
    Groups of unlike learning rates add up, each with its own parameters. Under momentum each gradient acts for
    many steps with total weight (1 − τ)/(1 − β), which multiplies η; `details["learning_rates"]` gives the
    products. Weight decay does not enter. The standard error is a delete-a-block jackknife (None under groups of
    unlike rates and below 16 samples: `details["without_error"]` says why).

    Args:
        num_train: n, samples in the training set. A probe does not know it: missing until you give it.

    Raises:
        ValueError: if `num_train` is below 1.

    Source: Roberts 2021 (SGD Implicitly Regularizes Generalization Error).
    """

    name: ClassVar = "gap.predicted"
    title: ClassVar = "Predicted growth of the generalisation gap"
    question: ClassVar = Question.OVERFITTING
    summary: ClassVar = "By how much the next step of SGD is expected to widen the gap between held-out and train loss."
    formula: ClassVar = r"\eta\,\operatorname{tr}\operatorname{Cov}(g_i) / n"
    unit: ClassVar = "loss per step"
    undefined: ClassVar = (
        "num_train= is not given, no optimiser or one that is not SGD, fewer than two samples, or a gradient with NaN "
        "or Inf."
    )
    source: ClassVar = "Roberts 2021, SGD Implicitly Regularizes Generalization Error"
    needs: ClassVar = Needs.PER_SAMPLE_GRADIENTS | Needs.OPTIMIZER_STATE
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 100
    scale: ClassVar = Scale.LOG

    num_train: int | None = None

    def __post_init__(self) -> None:
        if self.num_train is not None and self.num_train < 1:
            raise ValueError(
                f"expected num_train ≥ 1, got {self.num_train} in options of 'gap.predicted'; "
                "give the number of samples in the training set, len(dataset)"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the growth per step."""
        if self.num_train is None:
            raise Missing("the size of the training set is not known: give options={'gap.predicted': {'num_train': n}}")
        rates = learning_rates(snapshot.optimizer)
        sums = finite_sums(snapshot)
        whole = of_all_samples(sums)
        used = sorted({rates.get(name, 0.0) for name in sums.layout})
        details = {"num_train": self.num_train, "learning_rates": used}
        if len(used) == 1:
            factor = used[0] / self.num_train
            error, words = _error(sums, whole.trace, factor)
            return Reading(factor * whole.trace, error, details={**details, **words})
        value = sum(rates.get(name, 0.0) * trace for name, trace in traces(sums).items()) / self.num_train
        return Reading(value, details={**details, "without_error": "the groups have unlike learning rates"})


def learning_rates(optimizer: OptimizerView) -> Mapping[str, float]:
    """Return η (1 − τ)/(1 − β) by parameter name.

    Raises:
        Missing: if the optimiser is not SGD, or its momentum is 1.
    """
    if optimizer.kind != "SGD":
        raise Missing(f"the prediction is for steps along the gradient, which {optimizer.kind} does not take: only SGD")
    rates = {}
    for group in optimizer.groups:
        momentum, dampening = (float(group.options.get(key, 0.0)) for key in ("momentum", "dampening"))
        if momentum >= 1:
            raise Missing(f"with momentum {momentum:g} a gradient acts for ever")
        total = (1 - dampening) / (1 - momentum) if momentum else 1.0
        rates |= dict.fromkeys(group.names, float(group.options["lr"]) * total)
    return rates


def _error(sums: GradientSums, trace: float, factor: float) -> tuple[float | None, dict[str, str]]:
    left_out = without_each_block(sums)
    if left_out is None:
        return None, {"without_error": without_error(sums)}
    parts = torch.tensor([part.trace for part in left_out], dtype=torch.float64)
    return factor * jackknife_error(trace, parts, sums.block_counts()), {}
