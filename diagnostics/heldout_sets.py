"""Loss, accuracy and confidence on each of the held-out sets that the user has named.

Legend: K sets, M samples of one, C classes, p_i (C,) softmax of the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from trainvitals.diagnostics.base import Diagnostic, Evaluation, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.diagnostics.class_probabilities import log_probabilities
from trainvitals.diagnostics.generalization_gap import accuracy_and_error
from trainvitals.schema import Chart, Question, Reading

Number = tuple[float, float]  # value and standard error


def mean_confidence(evaluation: Evaluation) -> Number:
    """Return the mean over samples of max_c p_ic, and its standard error; labels need not be among the classes.

    Of a classifier of tokens it is the mean over tokens with a target.

    Raises:
        Missing: if outputs are not (N, C) with C >= 2 or hold NaN or Inf, or targets are not whole numbers (N,); of
            tokens, as `Evaluation.labelled`.
    """
    outputs, targets = evaluation.outputs, evaluation.targets
    if outputs.ndim > 2:
        cases = evaluation.labelled
        sure = log_probabilities(cases.outputs).max(1).values.exp()  # (R,)
        spread = cases.mean_error(sure)
        return float(sure.mean()), math.nan if spread is None else spread
    if targets is None or targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
        raise Missing("targets are not class labels, so that outputs are no probabilities of classes")
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise Missing(f"not a classifier: outputs have shape {tuple(outputs.shape)}, expected (N, C) with C >= 2")
    largest = log_probabilities(outputs).max(1).values.exp()  # (M,)
    error = float(largest.std() / len(largest) ** 0.5) if len(largest) > 1 else math.nan
    return float(largest.mean()), error


def _loss(evaluation: Evaluation) -> Number:
    if not math.isfinite(evaluation.loss):
        raise Missing(f"its loss is {evaluation.loss}")
    return evaluation.loss, 0.0


def _accuracy(evaluation: Evaluation) -> Number:
    return accuracy_and_error(evaluation)


def _by_set(
    sets: Mapping[str, Evaluation], number: Callable[[Evaluation], Number], *, is_exact: bool = False
) -> Reading:
    values, left_out = {}, {}
    for name, evaluation in sets.items():
        try:
            values[name] = number(evaluation)
        except Missing as reason:
            left_out[name] = str(reason)
    reading = by_layer({name: value for name, (value, _) in values.items()}, left_out, "no held-out set was given")
    errors = torch.tensor([error for _, error in values.values()], dtype=torch.float64)
    known = None if is_exact or errors.isnan().any() else errors
    sizes = {name: sets[name].num_samples for name in values}
    return Reading(reading.value, known, keys=reading.keys, details={**reading.details, "num_samples": sizes})


@dataclass
class HeldoutSets(Diagnostic):
    """Loss, accuracy and confidence on each named held-out set (shifted data, other sources, unseen classes).

    Each part is (K,) with the names in `heldout={"name": batch, ...}` as keys; one set without a name is "heldout".
    Losses are exact on the sets. Accuracies in [0, 1] carry a binomial standard error. Confidence, the mean largest
    probability, in [1/C, 1], carries the standard error of a mean; it needs no label among the classes. The set named
    "heldout", else the first, is the one that gap and overtraining are taken to, and costs nothing here; the others
    cost one forward pass each. Details: `num_samples`, and `left_out`, sets without a number and why. No options.
    """

    name = "heldout"
    title = "Held-out sets"
    question = Question.OVERFITTING
    summary = "How the network does on each of several held-out sets."
    formula = r"\frac{1}{M_s}\sum_{i \in s} \ell_i"
    undefined = (
        "No held-out set; loss: it is NaN or Inf; accuracy and confidence: outputs without classes for the targets, or "
        "targets that are not class labels."
    )
    source = (
        "Hendrycks, Gimpel 2017, A Baseline for Detecting Misclassified and Out-of-Distribution Examples, section 2 "
        "(largest probability, in and out of distribution)"
    )
    needs = Needs.HELDOUT
    tier = Tier.DEFAULT
    interval = 50
    chart = Chart.LINES
    keys = "set"
    passes = "one forward pass for each named set beside the first"
    parts = {
        "loss": Part("Loss on each held-out set", "Mean loss on each held-out set.", unit="loss"),
        "accuracy": Part(
            "Accuracy on each held-out set", "Share of each held-out set that is classified right.",
            unit="share of samples", formula=r"\frac{1}{M_s}\sum_{i \in s} 1[\arg\max_c f_c(x_i) = y_i]",
        ),
        "confidence": Part(
            "Confidence on each held-out set",
            "How sure the network is of what it predicts, on average; right or wrong does not enter.",
            unit="probability", formula=r"\frac{1}{M_s}\sum_{i \in s} \max_c p_{ic}",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the three numbers of each set."""
        sets = snapshot.heldout_sets
        return {
            "loss": or_missing(lambda: _by_set(sets, _loss, is_exact=True)),
            "accuracy": or_missing(lambda: _by_set(sets, _accuracy)),
            "confidence": or_missing(lambda: _by_set(sets, mean_confidence)),
        }
