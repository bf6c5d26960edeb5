"""How large Adam's steps are before the learning rate, and where ε takes over from the second moments.

Legend: m, v running means of the gradient and of its square, m̂, v̂ the same corrected for their start at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, OptimizerView, Snapshot, Tier
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale

_KINDS = ("Adam", "AdamW")
_UNDEFINED = "No optimiser was given, another one than torch's Adam and AdamW, or before its first step."


def moments(state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return m̂ = m/(1−β₁ᵗ) and √v̂ = √(v/(1−β₂ᵗ)) of one parameter, in float64.

    With AMSGrad v̂ is from the largest v so far, as torch has it.

    Args:
        state: "step", "exp_avg", "exp_avg_sq", and "max_exp_avg_sq" with AMSGrad.
        options: "betas" and "amsgrad" of the group.
    """
    beta1, beta2 = (float(beta) for beta in options["betas"])
    t = float(state["step"])
    v = state["max_exp_avg_sq"] if options.get("amsgrad") else state["exp_avg_sq"]
    m_hat = state["exp_avg"].detach().double() / (1 - beta1**t)
    return m_hat, (v.detach().double() / (1 - beta2**t)).sqrt()


def update(m_hat: Tensor, root: Tensor, eps: float) -> Tensor:
    """Return m̂/(√v̂ + ε), and 0 where there has been no gradient and ε is 0.

    >>> update(torch.tensor([2.0, 0.0]), torch.tensor([3.0, 0.0]), 1.0).tolist()
    [0.5, 0.0]
    """
    below = root + eps
    return torch.where((m_hat == 0) & (below == 0), 0.0, m_hat / below)


def _of_parameters(optimizer: OptimizerView) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield name, options of the group and state of each parameter that has been stepped.

    Raises:
        Missing: for other optimisers.
    """
    if optimizer.kind not in _KINDS:
        raise Missing(f"the optimiser is {optimizer.kind}, not torch's Adam or AdamW")
    for group in optimizer.groups:
        for name in group.names:
            state = optimizer.state.get(name, {})
            if "exp_avg" in state and float(state.get("step", 0)) > 0:
                yield name, group.options, state


def _by_parameter(snapshot: Snapshot, number: Callable[[Tensor, Tensor, float], Tensor]) -> Reading:
    """Return the number of m̂, √v̂ and ε for each parameter, in the order of the optimiser's groups."""
    found = {
        name: float(number(*moments(state, options), float(options["eps"])))
        for name, options, state in _of_parameters(snapshot.optimizer)
    }
    if not found:
        raise Missing(f"{snapshot.optimizer.kind} has no moments yet: they exist after its first step")
    return Reading(value=torch.tensor(list(found.values()), dtype=torch.float64), keys=tuple(found))


@dataclass
class AdamUpdateRms(Diagnostic):
    """Root mean square of Adam's update m̂/(√v̂ + ε) of each parameter tensor, before the learning rate.

    Value (L,) in the order of the optimiser's groups, exact; decoupled weight decay is not part of it. About 1 at
    most for gradients that agree from step to step, smaller for noisy ones, near 0 where ε is larger than the
    gradients: then the tensor stands still. No options.
    """

    name = "adam.update_rms"
    title = "Size of Adam's update per layer"
    question = Question.STABILITY
    summary = "How large Adam's steps are before the learning rate: layers near 0 stand still, above 1 overshoot."
    formula = r"\sqrt{\operatorname{mean}\bigl(\hat m / (\sqrt{\hat v} + \epsilon)\bigr)^2}"
    undefined = _UNDEFINED
    source = (
        "Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training instabilities "
        "(update RMS and ε)"
    )
    needs = Needs.OPTIMIZER_STATE
    tier = Tier.FULL
    interval = 50
    chart = Chart.HEATMAP
    scale = Scale.LOG
    keys = "parameter"
    references = (ReferenceLine("gradients that all agree", 1.0, "by the definition"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one number per parameter tensor."""
        return _by_parameter(snapshot, lambda m, root, eps: update(m, root, eps).square().mean().sqrt())


@dataclass
class AdamEpsShare(Diagnostic):
    """Share of each parameter tensor's entries whose √v̂ is below ε: Adam no longer scales their steps.

    Value (L,) in the order of the optimiser's groups, each in [0, 1], exact. Entries that never had a gradient count
    too, as √v̂ = 0. No options.
    """

    name = "adam.eps_share"
    title = "Share of Adam's steps ruled by ε, per layer"
    question = Question.STABILITY
    summary = "How many weights have gradients so small that Adam's ε, not their size, sets their step."
    formula = r"\frac{1}{P_l}\,\#\{p : \sqrt{\hat v_p} < \epsilon\}"
    unit = "share of weights"
    undefined = _UNDEFINED
    source = AdamUpdateRms.source
    needs = Needs.OPTIMIZER_STATE
    tier = Tier.FULL
    interval = 50
    chart = Chart.HEATMAP
    keys = "parameter"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one share per parameter tensor."""
        return _by_parameter(snapshot, lambda m, root, eps: (root < eps).double().mean())
