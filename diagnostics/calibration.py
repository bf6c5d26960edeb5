"""Whether predicted probabilities mean what they say, on the train and on the held-out probe.

Of a language model each token with a target is a case in place of a sample; of more than 1,024, that many are drawn.

Legend: N samples (or tokens), C classes, p_i (C,) softmax of the outputs, y_i the label, B bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.class_probabilities import (
    CaseProbabilities,
    ClassProbabilities,
    cases_on_heldout,
    cases_on_train,
)
from trainvitals.schema import Question, Reading

_UNDEFINED = (
    "Outputs without classes for the targets, targets that are not class labels, or outputs with NaN or Inf; "
    "held-out: no held-out probe."
)


def bin_differences(confidences: Tensor, is_right: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    """Return Σ(1[right] − confidence) over the samples of each bin of equally many, and how many they are, (B,) each.

    A sample goes to the bin of its rank among the confidences; equal ones go together, by the middle of their ranks,
    so that the order of the samples does not matter.

    Args:
        confidences: (N,) probability of the predicted class.
        is_right: (N,) whether that is the label.
        num_bins: B.
    """
    confidences, N = confidences.double(), len(confidences)
    ordered = confidences.sort().values
    first = torch.searchsorted(ordered, confidences)
    last = torch.searchsorted(ordered, confidences, right=True)
    bins = ((first + last) * num_bins) // (2 * N)  # of the middle rank (first + last)/2 of N
    differences = torch.zeros(num_bins, dtype=torch.float64, device=confidences.device)
    differences.index_add_(0, bins, is_right.double() - confidences)
    return differences, torch.bincount(bins, minlength=num_bins)


def calibration_error(confidences: Tensor, is_right: Tensor, num_bins: int) -> float:
    """Return Σ_b (n_b/N) abs(accuracy_b − confidence_b) over bins of equally many samples, in [0, 1].

    Args and bins as in `bin_differences`.

    >>> round(calibration_error(torch.tensor([0.6, 0.6, 0.9, 0.9]), torch.tensor([True, False, True, True]), 2), 6)
    0.1
    """
    differences, _ = bin_differences(confidences, is_right, num_bins)
    return float(differences.abs().sum()) / len(confidences)


def largest_calibration_error(confidences: Tensor, is_right: Tensor, num_bins: int) -> float:
    """Return max_b abs(accuracy_b − confidence_b) over the bins that hold samples, in [0, 1].

    Args and bins as in `bin_differences`.

    >>> round(largest_calibration_error(torch.tensor([0.6, 0.6, 0.9]), torch.tensor([True, False, False]), 2), 6)
    0.9
    """
    differences, sizes = bin_differences(confidences, is_right, num_bins)
    return float((differences.abs() / sizes.clamp(min=1)).max())


def _mean(found: CaseProbabilities, values: Tensor) -> Reading:
    """Return a mean over cases with its standard error, for the data that the probe's samples were drawn from."""
    return Reading(value=float(values.mean()), error=found.cases.mean_error(values))


def _on_both(snapshot: Snapshot, number: Callable[[CaseProbabilities], Reading]) -> Mapping[str, Reading]:
    return {
        "train": or_missing(lambda: number(snapshot.once(cases_on_train))),
        "heldout": or_missing(lambda: number(snapshot.once(cases_on_heldout))),
    }


def _check_bins(num_bins: int, name: str) -> None:
    if isinstance(num_bins, bool) or not isinstance(num_bins, int) or num_bins < 1:
        raise ValueError(
            f"expected a whole number of at least 1, got num_bins={num_bins!r} in options of {name!r}; try 15"
        )


def _parts(title: str, summary: str) -> dict[str, Part]:
    return {
        "train": Part(f"{title} on the train probe", f"{summary}, on the train probe."),
        "heldout": Part(f"{title} on the held-out probe", f"{summary}, on the held-out probe."),
    }


@dataclass
class ExpectedCalibrationError(Diagnostic):
    """ECE: how far the probability of the predicted class is from the share of right predictions, in bins.

    Value in [0, 1], exact on the probe for these bins; with few samples a bin it is too high on average, even for a
    perfectly calibrated network. It can fall while wrong labels are memorised: read it beside the loss.

    Args:
        num_bins: bins of equally many samples; 15 as in Guo et al. (there of equal width).
    """

    name = "ece"
    title = "Expected calibration error (ECE)"
    question = Question.OVERFITTING
    summary = "How far confidence is from accuracy"
    formula = r"\sum_b \tfrac{n_b}{N}\,\bigl|\operatorname{acc}_b - \operatorname{conf}_b\bigr|"
    undefined = _UNDEFINED
    source = (
        "Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3; bins of equal mass: Nguyen, O'Connor "
        "2015, Posterior calibration and exploratory analysis for natural language processing models"
    )
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50
    parts = _parts("Expected calibration error", "How far confidence is from accuracy")

    num_bins: int = 15

    def __post_init__(self) -> None:
        _check_bins(self.num_bins, self.name)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the error on the train and on the held-out probe."""
        return _on_both(snapshot, self._error)

    def _error(self, found: ClassProbabilities) -> Reading:
        confidences, predicted = found.p.max(1)
        return Reading(value=calibration_error(confidences, predicted == found.labels, self.num_bins))


@dataclass
class MaximumCalibrationError(Diagnostic):
    """MCE: the largest distance of confidence from accuracy in any bin.

    Value in [0, 1], exact on the probe for these bins; a maximum over bins of few samples is too high on average,
    by about 1/√n of a bin's n samples: compare it between steps, not with 0.

    Args:
        num_bins: bins of equally many samples; 15 as in Guo et al. (there of equal width).
    """

    name = "mce"
    title = "Maximum calibration error (MCE)"
    question = Question.OVERFITTING
    summary = "How far confidence is from accuracy where it is farthest"
    formula = r"\max_b \bigl|\operatorname{acc}_b - \operatorname{conf}_b\bigr|"
    undefined = _UNDEFINED
    source = "Guo et al. 2017, On Calibration of Modern Neural Networks, equation 5; bins of equal mass as in `ece`"
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50
    parts = _parts("Maximum calibration error", "How far confidence is from accuracy where it is farthest")

    num_bins: int = 15

    def __post_init__(self) -> None:
        _check_bins(self.num_bins, self.name)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the error on the train and on the held-out probe."""
        return _on_both(snapshot, self._error)

    def _error(self, found: ClassProbabilities) -> Reading:
        confidences, predicted = found.p.max(1)
        return Reading(value=largest_calibration_error(confidences, predicted == found.labels, self.num_bins))


@dataclass
class BrierScore(Diagnostic):
    """Brier score: mean over samples of ‖p_i − onehot(y_i)‖², summed over all classes.

    Value in [0, 2]; `error` is the standard error of the mean, for the data that the probe was drawn from. It falls
    with accuracy as well as with calibration. No options.
    """

    name = "brier"
    title = "Brier score"
    question = Question.OVERFITTING
    summary = "Squared distance of the predicted probabilities from the labels"
    formula = r"\frac{1}{N}\sum_i \sum_c (p_{ic} - 1[y_i = c])^2"
    undefined = _UNDEFINED
    source = "Brier 1950, Verification of forecasts expressed in terms of probability"
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50
    parts = _parts("Brier score", "Squared distance of the predicted probabilities from the labels")

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the score on the train and on the held-out probe."""
        return _on_both(snapshot, lambda found: _mean(found, squared_errors(found)))


def squared_errors(found: ClassProbabilities) -> Tensor:
    """Return ‖p_i − onehot(y_i)‖² of each sample, (N,)."""
    one_hot = torch.nn.functional.one_hot(found.labels, found.log_p.shape[1])
    return (found.p - one_hot).square().sum(1)


@dataclass
class NegativeLogLikelihood(Diagnostic):
    """Mean over samples of −log of the probability that the network gives the label.

    Value ≥ 0, in nats; `error` is the standard error of the mean, for the data that the probe was drawn from. It is
    the loss where that is plain cross-entropy, and stays comparable under label smoothing, class weights or another
    loss. Infinite where a label has probability 0. No options.
    """

    name = "nll"
    title = "Negative log likelihood of the labels"
    question = Question.OVERFITTING
    summary = "How surprised the network is by the labels"
    formula = r"-\frac{1}{N}\sum_i \log p_{i y_i}"
    unit = "nats"
    undefined = _UNDEFINED
    source = "Guo et al. 2017, On Calibration of Modern Neural Networks, section 2"
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50
    parts = _parts("Negative log likelihood", "How surprised the network is by the labels")

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the mean on the train and on the held-out probe."""
        return _on_both(snapshot, lambda found: _mean(found, -found.log_p_label))
