"""What the nearest neighbours of a sample in feature space say: their labels, and a classifier made of them.

Neighbours at equal distance share the last places, so no number depends on the order of the samples.

Legend: N samples of the train probe, M of the held-out one, D features, C classes, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, Needs, Tier
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.diagnostics.feature_rank import feature_matrix
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.schema import Question, Reading


def distances(queries: Tensor, base: Tensor) -> Tensor:
    """Return Euclidean distances (M, N) of queries (M, D) from base (N, D), without the shortcut that rounds."""
    return torch.cdist(queries, base, compute_mode="donot_use_mm_for_euclid_dist")


def neighbour_weights(d: Tensor, k: int) -> Tensor:
    """Return how much each base sample is one of a query's k nearest, (M, N): rows sum to k.

    1 for those nearer than the k-th, 0 for those farther; what lies at the k-th distance shares the places left.

    >>> neighbour_weights(torch.tensor([[1.0, 2.0, 2.0, 3.0]]), 2).tolist()
    [[1.0, 0.5, 0.5, 0.0]]
    """
    limit = d.kthvalue(k, dim=1, keepdim=True).values
    nearer, tied = (d < limit).double(), (d == limit).double()
    return nearer + tied * (k - nearer.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)


def distances_to_others(view: FeatureView) -> Tensor:
    """Return distances (N, N) between the train probe's features, infinite to a sample itself, for `Snapshot.once`.

    Raises:
        Missing: as `feature_matrix`.
    """
    H = feature_matrix(view.features)
    return distances(H, H).fill_diagonal_(torch.inf)


def purity(d: Tensor, labels: Tensor, k: int) -> float:
    """Return the mean share of a sample's k nearest other samples that have its label.

    Args:
        d: (N, N) distances, infinite to a sample itself.
        labels: (N,).
        k: number of neighbours, below N.
    """
    same = (labels[:, None] == labels[None, :]).double()
    return float((neighbour_weights(d, k) * same).sum(1).mean() / k)


def vote_accuracy(votes: Tensor, labels: Tensor) -> float:
    """Return the share of queries whose label has the most votes (M, C); classes that tie share the query.

    >>> vote_accuracy(torch.tensor([[2.0, 1.0], [1.5, 1.5]]), torch.tensor([0, 0]))
    0.75
    """
    winners = votes >= votes.max(1, keepdim=True).values - 1e-9  # shared places make thirds of votes
    right = winners.gather(1, labels[:, None]).squeeze(1)
    return float((right.double() / winners.sum(1)).mean())


def _check_k(k: object, name: str) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(
            f"expected a whole number of at least 1, got k={k!r} in options of {name!r}; leave it out for the default"
        )


@dataclass
class KnnPurity(FeatureDiagnostic):
    """Share of a sample's k nearest neighbours among the train probe's last-layer features that have its label.

    Value in [0, 1], the mean over samples, exact on the probe; Euclidean distances. Unchanged when features are
    shifted, scaled or rotated. Details: `chance`, the same for neighbours drawn at random.

    Args:
        k: number of neighbours; 10 is our choice.
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "knn_purity"
    title = "Purity of nearest neighbours"
    question = Question.REPRESENTATION
    summary = "How often a sample's nearest neighbours in the last-layer features have its label."
    formula = r"\frac{1}{N}\sum_i \frac{1}{k}\,\#\{j \in \mathrm{kNN}(i) : y_j = y_i\}"
    unit = "share of neighbours"
    undefined = "Targets that are not class labels, no last-layer features (N, D), or not more than k samples."
    source = (
        "Frosst, Papernot, Hinton 2019, Analyzing and Improving Representations with the Soft Nearest Neighbor Loss "
        "(there with soft neighbours)"
    )
    needs = Needs.FEATURES | Needs.OUTPUTS
    tier = Tier.FULL
    interval = 100

    k: int = 10

    def _check_options(self) -> None:
        _check_k(self.k, self.name)

    def of(self, view: FeatureView) -> Reading:
        """Return the purity."""
        labels, num_classes = view.labels()
        d = view.once(distances_to_others)
        if len(d) <= self.k:
            raise Missing(f"{len(d)} samples in the probe batch: {self.k} neighbours need {self.k + 1}")
        counts = torch.bincount(labels, minlength=num_classes).double()
        chance = float((counts * (counts - 1)).sum() / (len(d) * (len(d) - 1)))
        return Reading(value=purity(d, labels, self.k), details={"chance": chance})


@dataclass
class KnnProbe(FeatureDiagnostic):
    """Accuracy on the held-out probe of a vote of the k nearest samples of the train probe, in last-layer features.

    Value in [0, 1]; `error` is the binomial standard error, for the data that the held-out probe was drawn from.
    Euclidean distances, one vote each, classes that tie share the sample. It grows with the size of the train probe.

    Args:
        k: number of neighbours; 10 is our choice.
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "probe.knn"
    title = "Accuracy of a nearest-neighbour probe"
    question = Question.REPRESENTATION
    summary = "How well the last-layer features alone classify held-out samples, by their neighbours' labels."
    formula = r"\frac{1}{M}\sum_i 1[\operatorname{mode}\{y_j : j \in \mathrm{kNN}(x_i)\} = y_i]"
    unit = "share of samples"
    undefined = (
        "No held-out probe, targets that are not class labels, no last-layer features (N, D), fewer than k samples."
    )
    source = "Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination"
    needs = Needs.FEATURES | Needs.OUTPUTS | Needs.HELDOUT | Needs.HELDOUT_FEATURES
    tier = Tier.FULL
    interval = 100

    k: int = 10

    def _check_options(self) -> None:
        _check_k(self.k, self.name)

    def of(self, view: FeatureView) -> Reading:
        """Return the accuracy."""
        labels, num_classes = view.labels()
        wanted = view.heldout_labels()
        base, queries = probe_features(view)
        if len(base) < self.k:
            raise Missing(f"{len(base)} samples in the train probe: fewer than {self.k} neighbours")
        one_hot = torch.nn.functional.one_hot(labels, num_classes).double()
        accuracy = vote_accuracy(neighbour_weights(distances(queries, base), self.k) @ one_hot, wanted)
        return Reading(value=accuracy, error=share_error(accuracy, view.num_heldout))


def probe_features(view: FeatureView) -> tuple[Tensor, Tensor]:
    """Return the features of the train probe (N, D) and of the held-out one (M, D), in float64.

    Raises:
        Missing: if one of them is not a finite matrix, they differ in D, or the train features are all zero.
    """
    base, queries = feature_matrix(view.features), view.heldout_features
    if queries.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise Missing(
            f"held-out features have shape {tuple(queries.shape)}, expected (M, D) with D = {base.shape[1]}"
        )
    if not queries.isfinite().all():
        raise Missing("the held-out features hold NaN or Inf")
    return base, queries.double()
