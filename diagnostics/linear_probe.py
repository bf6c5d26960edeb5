"""What a linear classifier reads from the features: ridge regression on labels, fitted in closed form.

Legend: N samples of the train probe, M of the held-out one, D features, C classes, X (N, D) centred features,
Y (N, C) centred one-hot labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, Needs, Tier
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.nearest_neighbours import probe_features
from trainvitals.schema import Question, Reading


@dataclass(frozen=True)
class RidgeClassifier:
    """argmax over c of (h − centre)·weight_c + offset_c."""

    centre: Tensor  # (D,)
    weight: Tensor  # (D, C)
    offset: Tensor  # (C,)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Return the share of samples (M, D) that it classifies as labelled."""
        return float((((features - self.centre) @ self.weight + self.offset).argmax(1) == labels).double().mean())


def fitted(features: Tensor, labels: Tensor, num_classes: int, ridge: float) -> RidgeClassifier:
    """Return the minimiser of ‖Y − XW‖²/N + λ‖W‖², λ = ridge · tr(XᵀX)/(N·D), with a free offset.

    λ is relative to the mean variance of a feature, so that scaling and rotating features changes nothing.

    Args:
        features: (N, D) in float64.
        labels: (N,) in 0..C-1.
        num_classes: C.
        ridge: above 0.

    Raises:
        Missing: if fewer than two classes are there, or features are the same for every sample.
    """
    if len(labels.unique()) < 2:
        raise Missing("only one class in the probe batch")
    N, D = features.shape
    centre = features.mean(0)
    X = features - centre
    if float(X.norm()) <= 1e-14 * float(features.norm()):
        raise Missing("the features are the same for every sample")
    one_hot = torch.nn.functional.one_hot(labels, num_classes).to(X.dtype)
    Y = one_hot - one_hot.mean(0)
    penalty = ridge * float(X.square().sum()) / D  # N·λ
    if N < D:  # the same W from the smaller of the two systems
        gram = X @ X.T + penalty * torch.eye(N, dtype=X.dtype, device=X.device)
        weight = X.T @ torch.linalg.solve(gram, Y)
    else:
        gram = X.T @ X + penalty * torch.eye(D, dtype=X.dtype, device=X.device)
        weight = torch.linalg.solve(gram, X.T @ Y)
    return RidgeClassifier(centre, weight, one_hot.mean(0))


@dataclass
class LinearProbe(FeatureDiagnostic):
    """Accuracy on the held-out probe of a linear classifier fitted to the last-layer features of the train probe.

    Value in [0, 1]; `error` is the binomial standard error, for the data that the held-out probe was drawn from.
    Ridge regression on one-hot labels with a free offset, in closed form and float64: the network's own classifier
    does not enter. It grows with the size of the train probe. Unchanged when features are shifted, scaled or
    rotated. Details: `train`, its accuracy on the samples that it was fitted to.

    Args:
        ridge: weight of the penalty beside the mean variance of a feature; 0.01 is our choice.
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "probe.linear"
    title = "Accuracy of a linear probe"
    question = Question.REPRESENTATION
    summary = "How well a linear classifier reads held-out labels from the last-layer features."
    formula = (
        r"A_{\text{held-out}}(W, b),\ "
        r"(W, b) = \arg\min \tfrac{1}{N}\lVert Y - HW - b\rVert_F^2 + \lambda\lVert W\rVert_F^2"
    )
    unit = "share of samples"
    undefined = (
        "No held-out probe, targets that are not class labels, no last-layer features (N, D), only one class, or the "
        "same features for every sample."
    )
    source = "Alain, Bengio 2016, Understanding intermediate layers using linear classifier probes"
    needs = Needs.FEATURES | Needs.OUTPUTS | Needs.HELDOUT | Needs.HELDOUT_FEATURES
    tier = Tier.FULL
    interval = 100

    ridge: float = 0.01

    def _check_options(self) -> None:
        if not 0 < self.ridge < float("inf"):
            raise ValueError(f"expected ridge > 0, got ridge={self.ridge!r} in options of 'probe.linear'; try 0.01")

    def of(self, view: FeatureView) -> Reading:
        """Return the held-out accuracy."""
        labels, num_classes = view.labels()
        wanted = view.heldout_labels()
        base, queries = probe_features(view)
        if len(base) != len(labels) or len(queries) != len(wanted):
            raise Missing("features and labels differ in number")
        classifier = fitted(base, labels, num_classes, self.ridge)
        accuracy = classifier.accuracy(queries, wanted)
        details = {"train": classifier.accuracy(base, labels)}
        return Reading(value=accuracy, error=share_error(accuracy, view.num_heldout), details=details)
