"""By how much the right class leads: the margin of the outputs on the train probe.

Legend: N samples (or tokens with a target), C classes, z_i (C,) outputs of sample i, y_i its label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.schema import Question, Reading, ReferenceLine


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return z_{i y_i} − max_{k≠y_i} z_{ik} of each sample, (N,) in float64: above 0 where it is classified right.

    >>> margins(torch.tensor([[2.0, 0.5, 1.0], [2.0, 0.5, 1.0]]), torch.tensor([0, 2])).tolist()
    [1.0, -1.0]
    """
    z = outputs.double()
    own = z.gather(1, labels[:, None]).squeeze(1)
    others = z.scatter(1, labels[:, None], -torch.inf).max(1).values
    return own - others


@dataclass
class Margin(Diagnostic):
    """Lead of the right class over the next one, z_y − max_{k≠y} z_k, on the train probe.

    `mean`, with the standard error of the mean for the data that the probe was drawn from, and `lowest`, exact on
    the probe: above 0 once every sample is classified right. Of a classifier of tokens, each token with a target is a
    case in place of a sample; of more than 1,024, that many are drawn by a fixed seed. In the unit of the outputs,
    which grow with the weights: not comparable between runs, and not normalised. Details of `lowest`: `sample`, its
    place in the probe batch, and `token`, the place in the sample.
    No options.
    """

    name = "margin"
    title = "Margin"
    question = Question.OVERFITTING
    summary = "By how much the right class leads on the train probe."
    formula = r"z_{y} - \max_{k \ne y} z_k"
    unit = "logits"
    undefined = "Outputs without classes for the targets, targets that are no class labels, outputs with NaN or Inf."
    source = "Bartlett, Foster, Telgarsky 2017, Spectrally-normalized margin bounds for neural networks, section 1"
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 50
    references = (ReferenceLine("classified right", 0.0, "by the definition"),)
    parts = {
        "mean": Part("Mean margin", "By how much the right class leads on the train probe, on average."),
        "lowest": Part("Lowest margin", "The margin of the sample that is farthest from being classified right."),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the mean and the lowest margin."""
        cases = snapshot.train.labelled
        if not cases.outputs.isfinite().all():
            raise Missing("the outputs hold NaN or Inf")
        found = margins(cases.outputs, cases.labels)
        lowest = int(found.argmin())
        details = {"sample": int(cases.samples[lowest])}
        if cases.is_per_token:
            details["token"] = int(cases.places[lowest]) % math.prod(cases.grid[1:])
        return {
            "mean": Reading(value=float(found.mean()), error=cases.mean_error(found)),
            "lowest": Reading(value=float(found[lowest]), details=details),
        }
