"""How large the outputs of a classifier grow, and the log of their softmax's normaliser.

Classifiers of samples (N, C) and of tokens or pixels; every position counts alike.

Legend: n samples or positions, C classes, z (n, C) outputs, Z_i = Σ_c exp z_ic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.class_probabilities import class_scores
from trainvitals.schema import Question, Reading, Scale

_UNDEFINED = "Targets that are not whole numbers, outputs without a dimension of classes for them, NaN or Inf in them."


def _scores(snapshot: Snapshot) -> Tensor:
    scores = class_scores(snapshot.train)
    if not scores.isfinite().all():
        raise Missing("the outputs hold NaN or Inf")
    return scores


@dataclass
class LogitScale(Diagnostic):
    """Mean and largest abs(z) of the outputs on the train probe.

    Both ≥ 0, exact on the probe. They go on growing under cross-entropy once the data is separated. Adding a constant
    to all classes of a sample changes them, though not the predictions. No options.
    """

    name = "logit.scale"
    title = "Size of the logits"
    question = Question.OVERFITTING
    summary = "How large the outputs are: they grow without end where confidence does."
    formula = r"\operatorname{mean} |z_{ic}|,\ \max |z_{ic}|"
    unit = "logits"
    undefined = _UNDEFINED
    source = "Ghosh et al. 2021, Logit Attenuating Weight Normalization"
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 50
    scale = Scale.LOG
    parts = {
        "mean": Part("Mean size of the logits", "How large the outputs are on average."),
        "largest": Part("Largest logit", "The largest output in absolute value."),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the mean and the largest."""
        sizes = snapshot.once(_scores).abs()
        return {
            "mean": Reading(value=float(sizes.mean(dtype=torch.float64))),
            "largest": Reading(value=float(sizes.max())),
        }


@dataclass
class LogNormalizer(Diagnostic):
    """log Z = log Σ_c exp z_c of the outputs on the train probe: its mean, and the largest in absolute value.

    `mean` may have either sign, `largest` ≥ 0; exact on the probe. Cross-entropy does not hold it in place: it
    drifts, and the largest ones cost digits in half precision. No options.
    """

    name = "logit.z"
    title = "Log normalizer of the logits"
    question = Question.STABILITY
    summary = "How far log Z of the softmax has drifted from 0."
    formula = r"\log \sum_c e^{z_{ic}}"
    unit = "logits"
    undefined = _UNDEFINED
    source = (
        "Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training instabilities, section 3.1.2 "
        "(output logit divergence, z-loss)"
    )
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 50
    parts = {
        "mean": Part("Mean log normalizer", "Where log Z of the softmax is on average: drifts away from 0."),
        "largest": Part("Largest log normalizer", "The largest log Z in absolute value."),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the mean and the largest in absolute value."""
        log_z = torch.logsumexp(snapshot.once(_scores).double(), -1)
        return {"mean": Reading(value=float(log_z.mean())), "largest": Reading(value=float(log_z.abs().max()))}
