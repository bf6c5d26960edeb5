"""Loss and accuracy of each group of samples that the user names, and of the worst group.

A mean over all samples hides a group that is left behind: a domain, a task, a spurious feature that does not hold.

Legend: N samples, K groups, N_g samples of group g, ℓ_i loss of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Evaluation, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.per_class import class_means
from trainvitals.diagnostics.sample_groups import Groups, check_groups, sample_groups
from trainvitals.schema import Chart, Question, Reading, Scale

GroupsOf = Callable[[int], tuple[Tensor, tuple[str, ...]]]  # number of samples -> groups of samples, names


def _loss(losses: Tensor, groups: GroupsOf) -> Reading:
    index, names = groups(len(losses))
    if not losses.isfinite().all():
        raise Missing("the loss of a sample is NaN or Inf")
    means, _ = class_means(losses, index.to(losses.device), len(names))
    return Reading(means.cpu(), keys=names)


def _accuracy(evaluation: Evaluation, groups: GroupsOf) -> Reading:
    labels, _ = evaluation.labels()
    index, names = groups(len(labels))
    is_right = evaluation.outputs.argmax(1) == labels
    means, _ = class_means(is_right, index.to(labels.device), len(names))
    sizes = torch.bincount(index, minlength=len(names)).tolist()
    errors = [share_error(share, size) for share, size in zip(means.tolist(), sizes, strict=True)]
    return Reading(means.cpu(), torch.tensor(errors, dtype=torch.float64), keys=names)


def _worst(reading: Reading, place: Callable[[Tensor], Tensor]) -> Reading:
    """Return the number of the group at `place` among all, without an error: the worst is not chosen beforehand."""
    if reading.missing is not None:
        return Reading.absent(reading.missing)
    worst = int(place(reading.value))
    return Reading(float(reading.value[worst]), details={"group": reading.keys[worst]})


def _parts() -> dict[str, Part]:
    kinds = (
        ("loss", "Loss", "loss", Scale.LOG, r"\frac{1}{N_g}\sum_{i \in g} \ell_i", r"\max_g\ "),
        ("accuracy", "Accuracy", "share of samples", Scale.LINEAR,
         r"\frac{1}{N_g}\sum_{i \in g} 1[\arg\max_k f_k(x_i) = y_i]", r"\min_g\ "),
    )  # fmt: skip
    parts = {}
    for where, probe in (("train", "train"), ("heldout", "held-out")):
        for what, word, unit, scale, formula, worst in kinds:
            parts[f"{what}_{where}"] = Part(
                f"{word} per group on the {probe} probe", f"{word} of each group of samples on the {probe} probe.",
                unit=unit, scale=scale, formula=formula,
            )  # fmt: skip
            parts[f"worst_{what}_{where}"] = Part(
                f"{word} of the worst group on the {probe} probe",
                f"{word} of the group that is worst off on the {probe} probe.",
                unit=unit, formula=worst + formula, chart=Chart.LINE,
            )  # fmt: skip
    return parts


@dataclass
class PerGroup(Diagnostic):
    """Mean loss and accuracy of each named group of samples, and of the worst, on the train and the held-out probe.

    Parts by group are (K,) with the groups as keys; losses are exact on the probe, accuracies in [0, 1] have a
    binomial standard error. `worst_loss_*` is the largest, `worst_accuracy_*` the smallest of them, and
    `details["group"]` whose it is; it has no error, for it is the worst of several draws and so biased to the bad
    side when groups are small. Give probes as tensors, so that places in them are known: one drawn from a loader is
    shuffled.

    Args:
        groups: a whole number or a name for each sample of the train probe, as a list or a tensor (N,).
        heldout_groups: the same for the held-out probe.
    """

    groups: Groups = ()
    heldout_groups: Groups = ()

    name = "per_group"
    title = "Per group"
    question = Question.OVERFITTING
    summary = "Which groups of samples are fitted, and which are left behind."
    formula = r"\frac{1}{N_g}\sum_{i \in g} \ell_i"
    undefined = (
        "No groups were given (options groups, heldout_groups), or not one for each sample of the probe; accuracy: "
        "outputs that are not (N, C) or targets that are not class labels; held-out: no held-out probe; loss: one that "
        "has no value for one sample alone, is not their mean, or is not finite."
    )
    source = "Sagawa et al. 2020, Distributionally Robust Neural Networks for Group Shifts, section 2"
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50
    chart = Chart.HEATMAP
    keys = "group"
    parts = _parts()

    def __post_init__(self) -> None:
        check_groups(self.groups, "groups", self.name)
        check_groups(self.heldout_groups, "heldout_groups", self.name)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return loss and accuracy by group, and of the worst group, on both probes."""

        def of_train(num_samples: int) -> tuple[Tensor, tuple[str, ...]]:
            return sample_groups(self.groups, num_samples, "groups", "train")

        def of_heldout(num_samples: int) -> tuple[Tensor, tuple[str, ...]]:
            return sample_groups(self.heldout_groups, num_samples, "heldout_groups", "held-out")

        if not len(self.groups) and not len(self.heldout_groups):
            of_train(0)  # says how they are given, before any pass
        found = {
            "loss_train": or_missing(lambda: _loss(snapshot.sample_losses, of_train)),
            "accuracy_train": or_missing(lambda: _accuracy(snapshot.train, of_train)),
            "loss_heldout": or_missing(lambda: _loss(snapshot.heldout_sample_losses, of_heldout)),
            "accuracy_heldout": or_missing(lambda: _accuracy(snapshot.heldout, of_heldout)),
        }
        worst = {
            f"worst_{part}": _worst(reading, torch.argmax if part.startswith("loss") else torch.argmin)
            for part, reading in found.items()
        }
        return found | worst
