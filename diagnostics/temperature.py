"""By how much the outputs would have to be divided for their probabilities to fit the labels best.

Legend: R labelled cases (samples, or tokens with a target), C classes, z_i (C,) outputs of case i, y_i its label,
β = 1/T.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import root_scalar
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.class_probabilities import CaseProbabilities, cases_on_heldout, cases_on_train
from trainvitals.schema import Question, Reading, ReferenceLine, Scale

_WIDEST = 40.0  # log T is looked for within ±40: outputs a 1e17th or 1e17 times what they should be


def scores(log_p: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Return the derivative of each case's NLL by β, Σ_c p_ic(β) z_ic − z_iy, (R,).

    Args:
        log_p: (R, C) outputs, up to a shift of each row.
        labels: (R,).
        beta: β.
    """
    expected = (torch.softmax(beta * log_p, 1) * log_p).sum(1)
    return expected - log_p.gather(1, labels[:, None]).squeeze(1)


def best_temperature(log_p: Tensor, labels: Tensor) -> float:
    """Return the T > 0 at which the mean NLL of softmax(z/T) is lowest. It is convex in 1/T: there is one.

    Args:
        log_p: (R, C) outputs, up to a shift of each row, finite.
        labels: (R,).

    Raises:
        Missing: if every case is right, so that T → 0 is best, or outputs are no better than chance, so that no
            finite T is.

    >>> z = torch.tensor([[2.0, 0.0]] * 3 + [[0.0, 2.0]]).double()  # right 3 times in 4: p = 3/4 at 2/T = log 3
    >>> round(best_temperature(z, torch.tensor([0, 0, 0, 0])) * math.log(3), 6)
    2.0
    """
    lead = log_p.max(1).values - log_p.gather(1, labels[:, None]).squeeze(1)
    if not lead.any():
        raise Missing("every case is classified right: the NLL falls for ever as the temperature goes to 0")
    if float(scores(log_p, labels, 0.0).mean()) >= 0:
        raise Missing("the outputs say no more of the labels than chance: the best temperature is infinite")

    def slope(log_beta: float) -> float:
        return float(scores(log_p, labels, math.exp(log_beta)).mean())

    try:
        log_beta = root_scalar(slope, bracket=(-_WIDEST, _WIDEST), xtol=1e-12).root
    except ValueError as error:
        raise Missing(f"no temperature between 1e-17 and 1e17 is best: {error}") from error
    return math.exp(-float(log_beta))


def _fitted(found: CaseProbabilities) -> Reading:
    log_p = found.log_p
    if not log_p.isfinite().all():
        raise Missing("an output gives a class a probability of 0, which no temperature changes")
    T = best_temperature(log_p, found.labels)
    p = torch.softmax(log_p / T, 1)
    mean = (p * log_p).sum(1, keepdim=True)
    curvature = float((p * (log_p - mean).square()).sum(1).mean())  # of the mean NLL by β
    spread = found.cases.mean_error(scores(log_p, found.labels, 1 / T))
    error = None if spread is None or curvature == 0 else spread / curvature * T**2  # dT = −T² dβ
    now = float(-found.log_p_label.mean())
    then = float(-torch.log_softmax(log_p / T, 1).gather(1, found.labels[:, None]).mean())
    return Reading(T, error, details={"nll": now, "nll_scaled": then})


@dataclass
class Temperature(Diagnostic):
    """The T that minimises the mean NLL of softmax(z/T): 1 is calibrated in scale, above 1 overconfident.

    Value > 0, exact for the probe; `error` is the standard error for the data that it was drawn from (sandwich
    estimate). T of the held-out probe is the one to divide outputs by; T of the train probe only shows how far the
    two come apart. Details: `nll` as it is and `nll_scaled` at T. Of a language model each token with a target is a
    case in place of a sample. No options.
    """

    name = "temperature"
    title = "Temperature of the outputs"
    question = Question.OVERFITTING
    summary = "By how much outputs should be divided to say as much as they know: above 1 is overconfident"
    formula = r"\arg\min_T\ -\frac{1}{R}\sum_i \log \operatorname{softmax}(z_i / T)_{y_i}"
    undefined = (
        "Every case is classified right; outputs no better than chance; a probability of exactly 0; outputs without "
        "classes for the targets, or with NaN or Inf; held-out: no held-out probe."
    )
    source = (
        "Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2 (temperature scaling); error: White "
        "1982, Maximum Likelihood Estimation of Misspecified Models"
    )
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50
    scale = Scale.LOG
    references = (ReferenceLine("right as they are", 1.0, "by the definition"),)
    parts = {
        where: Part(f"Temperature on the {probe} probe", f"{summary}, on the {probe} probe.")
        for where, probe, summary in (("train", "train", summary), ("heldout", "held-out", summary))
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the temperature on the train and on the held-out probe."""
        return {
            "train": or_missing(lambda: _fitted(snapshot.once(cases_on_train))),
            "heldout": or_missing(lambda: _fitted(snapshot.once(cases_on_heldout))),
        }
