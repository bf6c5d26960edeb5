"""What a prediction that ignores the inputs would reach: the level below which nothing has been learned.

Legend: n samples or positions that count, C classes, p_c the share of class c among the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Evaluation, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.class_probabilities import class_scores
from trainvitals.schema import Question, Reading

IGNORED = -100  # torch's label of positions that do not count
_AGREES = 1e-3  # relative: a loss that is this near to the formula is taken for it (reduced precision, eps)


def class_shares(labels: Tensor, num_classes: int) -> Tensor:
    """Return p (C,) in float64, the share of each class among labels (n,).

    >>> class_shares(torch.tensor([0, 0, 0, 1]), 2).tolist()
    [0.75, 0.25]
    """
    return torch.bincount(labels, minlength=num_classes).double() / len(labels)


def entropy(shares: Tensor) -> float:
    """Return −Σ p log p: the cross-entropy of always predicting the shares, which no constant prediction beats.

    >>> round(entropy(torch.tensor([0.5, 0.5])), 4)
    0.6931
    """
    return float(torch.special.entr(shares.double()).sum())


def scores_and_labels(evaluation: Evaluation) -> tuple[Tensor, Tensor]:
    """Return outputs (n, C) and labels (n,) of the samples, tokens or pixels that count.

    Raises:
        Missing: if this is no classifier, if no label counts, or if labels lie outside 0..C−1.
    """
    scores = class_scores(evaluation)
    assert evaluation.targets is not None  # class_scores raises otherwise
    labels, scores = evaluation.targets.reshape(-1).long(), scores.reshape(-1, scores.shape[-1])
    counted = labels != IGNORED
    labels, scores = labels[counted], scores[counted]
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= scores.shape[1]:
        raise Missing(f"no label lies within 0..{scores.shape[1] - 1}, or some lie outside")
    return scores, labels


def _is(loss: float, formula: float) -> bool:
    return abs(loss - formula) <= _AGREES * max(abs(formula), 1e-6)


def _known_losses(evaluation: Evaluation) -> Iterator[tuple[str, float, float]]:
    """Yield (kind, mean over the probe by its formula, best constant's loss) of the losses that can be recognised."""
    outputs, targets = evaluation.outputs.double(), evaluation.targets
    if targets is None:
        return
    try:
        scores, labels = scores_and_labels(evaluation)
        yield _cross_entropy(scores, labels)
        if outputs.ndim == 3 and targets.shape == outputs.shape[:2]:  # a language model's labels are the next tokens
            yield _cross_entropy(*scores_and_labels(_shifted(evaluation, outputs, targets)))
        onehot = torch.nn.functional.one_hot(labels, scores.shape[1])
        outputs, targets = scores.double(), onehot  # a squared error on one-hot targets, below
    except Missing:
        pass
    if targets.numel() != outputs.numel() or targets.shape[:1] != outputs.shape[:1]:
        return
    targets = targets.reshape(outputs.shape)
    targets = targets.double()
    spread, error = targets - targets.mean(0), outputs - targets
    for kind, scale in (("squared error", 1.0), ("half squared error", 0.5)):
        yield kind, scale * float(error.square().mean()), scale * float(spread.square().mean())
        if outputs.ndim > 1:  # summed over outputs, mean over samples
            per_sample = scale * outputs[0].numel()
            yield kind, per_sample * float(error.square().mean()), per_sample * float(spread.square().mean())
    if bool(((targets == 0) | (targets == 1)).all()):
        value = float(torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets))
        p = targets.mean(0)
        yield "binary cross-entropy", value, entropy(torch.stack([p, 1 - p])) / max(p.numel(), 1)


def _cross_entropy(scores: Tensor, labels: Tensor) -> tuple[str, float, float]:
    value = float(torch.nn.functional.cross_entropy(scores.double(), labels))
    return "cross-entropy", value, entropy(class_shares(labels, scores.shape[1]))


def _shifted(evaluation: Evaluation, outputs: Tensor, targets: Tensor) -> Evaluation:
    flat = outputs[:, :-1].reshape(-1, outputs.shape[-1])
    return Evaluation(evaluation.loss, flat, targets[:, 1:].reshape(-1), evaluation.num_samples)


@dataclass
class Chance(Diagnostic):
    """What the best prediction that ignores the inputs reaches on the train probe.

    `chance.loss`: for cross-entropy the entropy of the labels, −Σ p_c log p_c; for squared errors the variance of
    the targets; for binary cross-entropy the entropy of each output's share. Which loss it is, is told from its value
    on the probe (details: `loss`). `chance.accuracy`: the share of the commonest class. `chance.num_classes`: C.
    Exact on the probe, the same at every step. No options.
    """

    name = "chance"
    title = "Chance level"
    question = Question.OVERFITTING
    summary = "What a prediction that ignores the inputs would reach on the train probe."
    formula = r"-\sum_c p_c \log p_c,\ \max_c p_c"
    undefined = (
        "Loss: it is none that can be told from its value (cross-entropy, squared error, binary cross-entropy). "
        "The others: no classifier."
    )
    source = "Cover, Thomas 2006, Elements of Information Theory, section 2.1 (entropy)"
    needs = Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 1000
    parts = {
        "loss": Part("Chance level of the loss", "The loss of the best prediction that ignores the inputs.", "loss"),
        "accuracy": Part("Chance level of the accuracy", "The share of the commonest class.", "share of samples"),
        "num_classes": Part("Number of classes", "How many classes the outputs tell apart.", "classes", "C"),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the three levels; each may be undefined alone."""
        parts = {"loss": _loss, "accuracy": _accuracy, "num_classes": _num_classes}
        return {part: or_missing(lambda of=of: of(snapshot.train)) for part, of in parts.items()}


def _loss(evaluation: Evaluation) -> Reading:
    for kind, value, chance in _known_losses(evaluation):
        if _is(evaluation.loss, value):
            return Reading(value=chance, details={"loss": kind})
    raise Missing("the loss is none that can be told from its value")


def _accuracy(evaluation: Evaluation) -> Reading:
    scores, labels = scores_and_labels(evaluation)
    return Reading(value=float(class_shares(labels, scores.shape[1]).max()))


def _num_classes(evaluation: Evaluation) -> Reading:
    return Reading(value=float(scores_and_labels(evaluation)[0].shape[1]))
