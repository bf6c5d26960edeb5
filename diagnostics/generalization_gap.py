"""The honest gap: loss and accuracy on two fixed subsets, with the same weights in the same mode.

The training loop's running loss is another number: it is taken over changing weights, on changing
batches, with dropout on.

Legend: N samples of the train probe, M of the held-out probe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainvitals.diagnostics.base import Diagnostic, Evaluation, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.evaluation import clustered_error
from trainvitals.schema import Question, Reading, ReferenceLine


def share_error(share: float, num_samples: int) -> float:
    """Return a standard error of a share: the deviation of its Jeffreys posterior, above 0 at 0 and at 1 too.

    Source: Brown, Cai, DasGupta 2001, Interval Estimation for a Binomial Proportion (Jeffreys interval).

    >>> round(share_error(0.5, 98), 3), share_error(1.0, 98) > 0
    (0.05, True)
    """
    a, b = share * num_samples + 0.5, (1 - share) * num_samples + 0.5
    return math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))


def accuracy_and_error(evaluation: Evaluation) -> tuple[float, float]:
    """Return the share of cases classified right (samples, or tokens with a target) and a standard error of it.

    Of samples it is `share_error`. Tokens of one sample are no independent draws: there it is `clustered_error`, or
    that of one draw a sample where all or none are right.

    Raises:
        Missing: as `Evaluation.labelled`.
    """
    is_right, samples = evaluation.rights()  # (R,), (R,)
    share, num = float(is_right.double().mean()), evaluation.num_samples
    error = None if len(samples) == num or share in (0.0, 1.0) else clustered_error(is_right, samples)
    return share, share_error(share, num) if error is None else error


def _accuracy(evaluation: Evaluation) -> Reading:
    share, error = accuracy_and_error(evaluation)
    return Reading(value=share, error=error, details={"num_samples": evaluation.num_samples})


def _gap_of_loss(snapshot: Snapshot) -> Reading:
    train, heldout = snapshot.train.loss, snapshot.heldout.loss
    return Reading(value=heldout - train, details={"train": train, "heldout": heldout})


def _gap_of_accuracy(snapshot: Snapshot) -> Reading:
    train, heldout = _accuracy(snapshot.train), _accuracy(snapshot.heldout)
    return Reading(
        value=heldout.value - train.value,
        error=math.hypot(train.error, heldout.error),
        details={"train": train.value, "heldout": heldout.value},
    )


@dataclass
class GeneralizationGap(Diagnostic):
    """L_heldout − L_train, and accuracy likewise, on the two fixed probes with the same weights.

    `gap.loss` is exact on the probes; `gap.accuracy` in [−1, 1] carries a standard error, for the data that the
    probes were drawn from; for classifiers of tokens as in `accuracy.train`. Details: the two terms. No options.
    """

    name = "gap"
    title = "Generalisation gap"
    question = Question.OVERFITTING
    summary = "How much worse the held-out probe is than the train probe, same weights, same mode."
    formula = r"L_{\text{held-out}} - L_{\text{train}}"
    unit = "loss"
    undefined = "No held-out probe; accuracy: outputs without classes for the targets, or targets that are not labels."
    source = "Goodfellow, Bengio, Courville 2016, Deep Learning, section 5.2"
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.DEFAULT
    interval = 50
    references = (ReferenceLine("no gap", 0.0, "by the definition"),)
    parts = {
        "loss": Part(
            "Generalisation gap of the loss",
            "Held-out minus train loss on the probes: above 0 the train data is fitted better. "
            "A large gap alone is not overfitting.",
        ),
        "accuracy": Part(
            "Generalisation gap of the accuracy",
            "Held-out minus train accuracy on the probes: below 0 the train data is fitted better.",
            unit="share of samples",
            formula=r"A_{\text{held-out}} - A_{\text{train}}",
        ),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the gap of the loss and of the accuracy."""
        return {
            "loss": or_missing(lambda: _gap_of_loss(snapshot)),
            "accuracy": or_missing(lambda: _gap_of_accuracy(snapshot)),
        }


@dataclass
class TrainLoss(Diagnostic):
    """Mean loss over the train probe, exact; a loss of NaN or Inf is recorded as such. No options."""

    name = "loss.train"
    title = "Loss on the train probe"
    question = Question.OVERFITTING
    summary = "Mean loss on a fixed subset of the train data; the loop's running train loss is another number."
    formula = r"\frac{1}{N}\sum_{i \in \text{train probe}} \ell_i(\theta)"
    unit = "loss"
    undefined = "Never: the probe batch and the loss are given."
    source = "Goodfellow, Bengio, Courville 2016, Deep Learning, section 5.2"
    needs = Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 50

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the loss."""
        return Reading(value=snapshot.train.loss)


@dataclass
class HeldoutLoss(Diagnostic):
    """Mean loss over the held-out probe, exact; a loss of NaN or Inf is recorded as such. No options."""

    name = "loss.heldout"
    title = "Loss on the held-out probe"
    question = Question.OVERFITTING
    summary = "Mean loss on a fixed subset of data that is not trained on; its turn upwards is the sign to look for."
    formula = r"\frac{1}{M}\sum_{i \in \text{held-out probe}} \ell_i(\theta)"
    unit = "loss"
    undefined = "No held-out probe was given."
    source = "Goodfellow, Bengio, Courville 2016, Deep Learning, section 5.2"
    needs = Needs.HELDOUT
    tier = Tier.DEFAULT
    interval = 50

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the loss."""
        return Reading(value=snapshot.heldout.loss)


@dataclass
class TrainAccuracy(Diagnostic):
    """Share of the train probe whose largest output is its label, with a binomial standard error.

    In [0, 1]. The error is for the data that the probe was drawn from. Of a classifier of tokens it is the share of
    all tokens with a target, with an error that lets tokens of one sample depend on each other. No options.
    """

    name = "accuracy.train"
    title = "Accuracy on the train probe"
    question = Question.OVERFITTING
    summary = "Share of a fixed subset of the train data classified right; a running accuracy is another number."
    formula = r"\frac{1}{N}\sum_{i \in \text{train probe}} 1[\arg\max_c f_c(x_i) = y_i]"
    unit = "share of samples"
    undefined = "Outputs without classes for the targets, or targets that are not class labels (regression)."
    source = "Goodfellow, Bengio, Courville 2016, Deep Learning, section 5.1.2"
    needs = Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 50

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the accuracy."""
        return _accuracy(snapshot.train)


@dataclass
class HeldoutAccuracy(Diagnostic):
    """Share of the held-out probe whose largest output is its label, with a binomial standard error.

    In [0, 1]. The error is for the data that the probe was drawn from. Of a classifier of tokens it is the share of
    all tokens with a target, with an error that lets tokens of one sample depend on each other. No options.
    """

    name = "accuracy.heldout"
    title = "Accuracy on the held-out probe"
    question = Question.OVERFITTING
    summary = "Share of a fixed subset of data that is not trained on that is classified right."
    formula = r"\frac{1}{M}\sum_{i \in \text{held-out probe}} 1[\arg\max_c f_c(x_i) = y_i]"
    unit = "share of samples"
    undefined = "No held-out probe, outputs without classes for the targets, or targets that are no labels."
    source = "Goodfellow, Bengio, Courville 2016, Deep Learning, section 5.1.2"
    needs = Needs.HELDOUT
    tier = Tier.DEFAULT
    interval = 50

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the accuracy."""
        return _accuracy(snapshot.heldout)


@dataclass
class Overtraining(Diagnostic):
    """Held-out loss now over the best held-out loss measured so far in this run; 1 is the best so far.

    A loss of NaN or Inf is recorded as such and never becomes the best. Details: `best_loss`, `best_step`.
    It remembers: the first measurement of an instance is 1. No options.
    """

    _best_loss: float | None = field(default=None, init=False, repr=False)
    _best_step: int | None = field(default=None, init=False, repr=False)

    name = "overtraining"
    title = "Overtraining"
    question = Question.OVERFITTING
    summary = "How far the held-out loss has risen above the best of this run: 1 is the best so far."
    formula = r"L_{\text{held-out}}(t) \big/ \min_{s \le t} L_{\text{held-out}}(s)"
    undefined = "No held-out probe; the loss, now or at its best, is not positive, so that a ratio says nothing."
    source = "Prechelt 1998, Early Stopping - But When? (generalization loss, here as a ratio)"
    needs = Needs.HELDOUT
    tier = Tier.DEFAULT
    interval = 50
    references = (ReferenceLine("best so far", 1.0, "by the definition"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the ratio."""
        loss = snapshot.heldout.loss
        if math.isfinite(loss) and (self._best_loss is None or loss < self._best_loss):
            self._best_loss, self._best_step = loss, snapshot.step
        if self._best_loss is None:
            return Reading(value=loss)  # NaN or Inf, and never anything else
        if loss <= 0 or self._best_loss <= 0:
            raise Missing(
                f"the held-out loss is {loss:.4g} and at best {self._best_loss:.4g} (step {self._best_step}): "
                "a ratio needs positive losses"
            )
        details = {"best_loss": self._best_loss, "best_step": self._best_step}
        return Reading(value=loss / self._best_loss, details=details)
