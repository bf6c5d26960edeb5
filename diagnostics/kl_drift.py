"""How far what the network says has moved: between outputs at an earlier measurement and now.

Legend: R labelled cases (samples, or tokens with a target), C classes, p_i (C,) softmax of the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.class_probabilities import CaseProbabilities, cases_on_train
from trainvitals.schema import Question, Reading, ReferenceLine


def kl_divergences(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return Σ_c p_c (log p_c − log q_c) of each row, (R,): 0 where p_c is 0, infinite where only q_c is.

    >>> half, sure = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log()
    >>> [round(float(kl_divergences(p, q)), 4) for p, q in ((half, half), (sure, half), (half, sure))]
    [0.0, 0.6931, inf]
    """
    p = log_p.double().exp()
    return torch.where(p > 0, p * (log_p.double() - log_q.double()), 0.0).sum(1)


@dataclass(frozen=True)
class _Kept:
    step: int
    log_p: Tensor  # (R, C) on the CPU


@dataclass
class KlDrift(Diagnostic):
    """Mean KL divergence on the train probe of what the network says now from what it said before.

    `initial`: KL(p(first measurement) ‖ p(now)); `previous`: KL(p(last measurement) ‖ p(now)). Value ≥ 0, in nats,
    exact on the probe; `error` is the standard error of the mean, for the data that it was drawn from. Of a language
    model each token with a target is a case in place of a sample. Details: `step`, the one compared with. It
    remembers: an instance's first measurement has nothing to compare with. No options.
    """

    _first: _Kept | None = field(default=None, init=False, repr=False)
    _previous: _Kept | None = field(default=None, init=False, repr=False)

    name = "kl_drift"
    title = "Drift of the predictions"
    question = Question.REPRESENTATION
    summary = "How far the predictions have moved from earlier ones."
    formula = r"\frac{1}{R}\sum_i \sum_c p_{ic}(s) \log\frac{p_{ic}(s)}{p_{ic}(t)}"
    unit = "nats"
    undefined = (
        "The first measurement; outputs without classes for the targets, or with NaN or Inf; a class that was possible "
        "has a probability of exactly 0 now."
    )
    source = (
        "Du et al. 2022, Sharpness-Aware Training for Free, section 3.2 (KL to outputs of earlier weights, as a "
        "regulariser); Jiang et al. 2020, SMART, section 3.2"
    )
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 50
    references = (ReferenceLine("unchanged", 0.0, "by the definition"),)
    parts = {
        "initial": Part(
            "Drift of the predictions from the first", "How far the predictions are from those first measured.",
            formula=r"\frac{1}{R}\sum_i \mathrm{KL}\bigl(p_i(0) \,\Vert\, p_i(t)\bigr)",
        ),
        "previous": Part(
            "Drift of the predictions from the last", "How far the predictions have moved since the last measurement.",
            formula=r"\frac{1}{R}\sum_i \mathrm{KL}\bigl(p_i(s) \,\Vert\, p_i(t)\bigr)",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the drift from the first and from the previous measurement."""
        found = snapshot.once(cases_on_train)
        first, previous = self._first, self._previous
        self._previous = _Kept(snapshot.step, found.log_p.cpu())
        self._first = first or self._previous
        return {
            "initial": or_missing(lambda: _drift(first, found)),
            "previous": or_missing(lambda: _drift(previous, found)),
        }


def _drift(then: _Kept | None, found: CaseProbabilities) -> Reading:
    if then is None:
        raise Missing("this is the first measurement: there is no earlier one to compare with")
    if then.log_p.shape != found.log_p.shape:
        raise Missing("the number of classes has changed since that measurement")
    divergences = kl_divergences(then.log_p.to(found.log_p.device), found.log_p)
    if not divergences.isfinite().all():
        raise Missing("a class that was possible has a probability of exactly 0 now: the divergence is infinite")
    return Reading(float(divergences.mean()), found.cases.mean_error(divergences), details={"step": then.step})
