"""Softmax collapse: samples whose cross-entropy is exactly 0 in floating point, and that give no gradient any more.

Legend: N samples, C classes, z (N, C) outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.class_probabilities import are_probabilities
from trainvitals.schema import Question, Reading


def zero_share(outputs: Tensor, labels: Tensor) -> float:
    """Return the share of samples with a cross-entropy of exactly 0 in the dtype of the outputs (N, C).

    >>> zero_share(torch.tensor([[0.0, 20.0], [0.0, 2.0]]), torch.tensor([1, 1]))
    0.5
    """
    if are_probabilities(outputs):
        losses = -outputs.gather(1, labels[:, None]).log()
    else:
        losses = torch.nn.functional.cross_entropy(outputs, labels, reduction="none")
    return float((losses == 0).double().mean())


@dataclass
class SoftmaxCollapse(Diagnostic):
    """Share of train-probe samples whose cross-entropy rounds to exactly 0: the other classes are absorbed.

    Value in [0, 1], exact on the probe, in the dtype of the outputs; for bf16 and fp16 models that is float32, as
    probes compute, and as torch's autocast computes cross-entropy. Of a classifier of tokens, the share of tokens with
    a target; of more than 1,024, that many are drawn by a fixed seed. No options.
    """

    name = "softmax_collapse"
    title = "Softmax collapse"
    question = Question.STABILITY
    summary = "How many train samples have a loss of exactly 0 by rounding: they no longer give a gradient."
    formula = r"\frac{1}{N}\,\#\{i : \mathrm{fl}(-\log p_{i y_i}) = 0\}"
    unit = "share of samples"
    undefined = "Outputs without classes for the targets, targets that are no class labels, outputs with NaN or Inf."
    source = "Prieto et al. 2025, Grokking at the Edge of Numerical Stability, section 3"
    needs = Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 50

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the share."""
        cases = snapshot.train.labelled
        if not cases.outputs.isfinite().all():
            raise Missing("the outputs hold NaN or Inf")
        return Reading(value=zero_share(cases.outputs, cases.labels))
