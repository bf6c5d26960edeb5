"""What the outputs say as probabilities of the classes, in float64, shared by all that asks for them.

Legend: N samples, C classes, z (N, C) outputs, p (N, C) probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Evaluation, Missing, Snapshot
from trainvitals.diagnostics.evaluation import Labelled


@dataclass(frozen=True)
class ClassProbabilities:
    """Log probabilities of every class and the labels of N samples."""

    log_p: Tensor  # (N, C) in float64
    labels: Tensor  # (N,) in 0..C-1

    @property
    def p(self) -> Tensor:
        """Probabilities, (N, C)."""
        return self.log_p.exp()

    @property
    def log_p_label(self) -> Tensor:
        """Log probability of each sample's own label, (N,)."""
        return self.log_p.gather(1, self.labels[:, None]).squeeze(1)


def class_probabilities(evaluation: Evaluation) -> ClassProbabilities:
    """Return softmax probabilities of the outputs; outputs that are probabilities already are taken as they are.

    Raises:
        Missing: if this is no classifier with labels, as `Evaluation.labels`, or outputs hold NaN or +Inf.
    """
    labels, _ = evaluation.labels()
    return ClassProbabilities(log_probabilities(evaluation.outputs), labels.to(evaluation.outputs.device))


@dataclass(frozen=True)
class CaseProbabilities(ClassProbabilities):
    """The same of labelled cases: samples, or tokens with a target."""

    cases: Labelled  # R of them, in place of N


def case_probabilities(evaluation: Evaluation) -> CaseProbabilities:
    """Return the probabilities of each labelled case, one a sample or one a token (see `Evaluation.labelled`).

    Raises:
        Missing: if this is no classifier with labels, as `Evaluation.labelled`, or outputs hold NaN or +Inf.
    """
    cases = evaluation.labelled
    return CaseProbabilities(log_probabilities(cases.outputs), cases.labels, cases)


def log_probabilities(outputs: Tensor) -> Tensor:
    """Return log p (N, C) in float64: log softmax of the outputs, or their log where they are probabilities.

    An output of −Inf is a probability of 0.

    Raises:
        Missing: if they hold NaN or +Inf, or a row of −Inf only.

    >>> log_probabilities(torch.tensor([[0.25, 0.75], [1.0, 0.0]])).exp().tolist()
    [[0.25, 0.75], [1.0, 0.0]]
    """
    z = outputs.double()
    log_p = z.log() if are_probabilities(outputs) else torch.log_softmax(z, 1)
    if log_p.isnan().any():
        raise Missing("the outputs hold NaN or Inf")
    return log_p


def are_probabilities(outputs: Tensor) -> bool:
    """Tell whether no output (N, C) is negative and every row sums to 1 within 1e-3."""
    return bool((outputs >= 0).all()) and bool(((outputs.double().sum(1) - 1).abs() < 1e-3).all())


def on_train(snapshot: Snapshot) -> ClassProbabilities:
    """Return those of the train probe, for `Snapshot.once`."""
    return class_probabilities(snapshot.train)


def on_heldout(snapshot: Snapshot) -> ClassProbabilities:
    """Return those of the held-out probe, for `Snapshot.once`."""
    return class_probabilities(snapshot.heldout)


def cases_on_train(snapshot: Snapshot) -> CaseProbabilities:
    """Return those of the train probe's samples or tokens, for `Snapshot.once`."""
    return case_probabilities(snapshot.train)


def cases_on_heldout(snapshot: Snapshot) -> CaseProbabilities:
    """Return those of the held-out probe's samples or tokens, for `Snapshot.once`."""
    return case_probabilities(snapshot.heldout)


def class_scores(evaluation: Evaluation) -> Tensor:
    """Return the outputs with the classes in the last dimension, (..., C), for classifiers of samples or of tokens.

    The classes are the dimension that the targets lack: the last of (N, T, C) for targets (N, T), the second of
    (N, C, ...) for targets (N, ...), as torch's cross-entropy has them.

    Raises:
        Missing: if there are no whole-number targets, or their shape is none of these, or C is 1.
    """
    outputs, targets = evaluation.outputs, evaluation.targets
    if targets is None:
        raise Missing("the probe batch has no targets that TrainVitals can find")
    if targets.is_floating_point() or targets.is_complex():
        raise Missing(f"targets are not class labels: {targets.dtype} of shape {tuple(targets.shape)}")
    if outputs.ndim >= 2 and outputs.shape[1] > 1 and (outputs.shape[:1] + outputs.shape[2:]) == targets.shape:
        return outputs.movedim(1, -1)
    if outputs.ndim >= 2 and outputs.shape[-1] > 1 and outputs.shape[:-1] == targets.shape:
        return outputs
    raise Missing(
        f"not a classifier: outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}"
    )
