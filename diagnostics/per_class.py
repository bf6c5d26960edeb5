"""Loss and accuracy of each class: a mean over all samples hides the class that is left behind.

Legend: N samples, C classes, N_c samples of class c, ℓ_i loss of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Evaluation, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.schema import Chart, Question, Reading, Scale


def class_means(values: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return means of values (N,) over each class that is there, and those classes, (K,) each.

    >>> [t.tolist() for t in class_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2, 2, 0]), 3)]
    [[5.0, 2.0], [0, 2]]
    """
    counts = torch.bincount(labels, minlength=num_classes)
    sums = torch.zeros(num_classes, dtype=torch.float64, device=values.device).index_add_(0, labels, values.double())
    present = counts.nonzero().flatten()
    return sums[present] / counts[present], present


def _reading(values: Tensor, present: Tensor, num_classes: int, worst: int, error: Tensor | None = None) -> Reading:
    details: dict[str, Any] = {"worst_class": int(present[worst])}
    absent = sorted(set(range(num_classes)) - set(present.tolist()))
    if absent:
        details["left_out"] = dict.fromkeys(map(str, absent), "no sample in the probe batch")
    return Reading(value=values, error=error, keys=tuple(str(c) for c in present.tolist()), details=details)


def _accuracy(evaluation: Evaluation) -> Reading:
    labels, num_classes = evaluation.labels()
    means, present = class_means(evaluation.outputs.argmax(1) == labels, labels, num_classes)
    counts = torch.bincount(labels, minlength=num_classes)[present].tolist()
    error = [share_error(share, n) for share, n in zip(means.tolist(), counts, strict=True)]
    return _reading(means, present, num_classes, int(means.argmin()), torch.tensor(error, dtype=torch.float64))


def _loss(evaluation: Evaluation, losses: Tensor) -> Reading:
    labels, num_classes = evaluation.labels()
    if losses.isnan().any():
        raise Missing("the loss of a sample is NaN")
    means, present = class_means(losses, labels.to(losses.device), num_classes)
    return _reading(means, present, num_classes, int(means.argmax()))


@dataclass
class PerClass(Diagnostic):
    """Mean loss and accuracy (recall) of each class, on the train and on the held-out probe.

    Each part is (K,) with the K classes that are in the probe as keys. Losses are exact on the probe; accuracies in
    [0, 1] have a binomial standard error. Details: `worst_class`, and `left_out`, classes without a sample.
    No options.
    """

    name = "per_class"
    title = "Per class"
    question = Question.OVERFITTING
    summary = "Which classes are fitted, and which are left behind."
    formula = r"\frac{1}{N_c}\sum_{i : y_i = c} \ell_i,\ \frac{1}{N_c}\sum_{i : y_i = c} 1[\arg\max_k f_k(x_i) = c]"
    undefined = (
        "Outputs that are not (N, C) or targets that are not class labels; held-out: no held-out probe; loss: one that "
        "has no value for one sample alone, or is not their mean."
    )
    source = "Sagawa et al. 2020, Distributionally Robust Neural Networks for Group Shifts, section 2 (groups: classes)"
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50
    chart = Chart.HEATMAP
    keys = "class"
    parts = {
        f"{what}_{where}": Part(
            f"{word} per class on the {probe} probe", f"{word} of each class on the {probe} probe.",
            unit=unit, scale=scale, formula=formula,
        )
        for what, word, unit, scale, formula in (
            ("loss", "Loss", "loss", Scale.LOG, r"\frac{1}{N_c}\sum_{i : y_i = c} \ell_i"),
            ("accuracy", "Accuracy", "share of samples", Scale.LINEAR,
             r"\frac{1}{N_c}\sum_{i : y_i = c} 1[\arg\max_k f_k(x_i) = c]"),
        )
        for where, probe in (("train", "train"), ("heldout", "held-out"))
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return loss and accuracy by class on both probes."""
        return {
            "loss_train": or_missing(lambda: _loss(snapshot.train, snapshot.sample_losses)),
            "loss_heldout": or_missing(lambda: _loss(snapshot.heldout, snapshot.heldout_sample_losses)),
            "accuracy_train": or_missing(lambda: _accuracy(snapshot.train)),
            "accuracy_heldout": or_missing(lambda: _accuracy(snapshot.heldout)),
        }
