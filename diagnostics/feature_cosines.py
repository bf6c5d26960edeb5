"""The cone effect: features that all point the same way.

Legend: N samples (or tokens), D features, u_i = h_i/‖h_i‖.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, Needs, Tier
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.diagnostics.feature_rank import feature_matrix
from trainvitals.schema import Question, Reading, ReferenceLine


def mean_cosine(features: Tensor) -> float:
    """Return the mean of cos(h_i, h_j) over i ≠ j of features (N, D) without a zero row: (‖Σ u_i‖² − N)/(N(N−1)).

    >>> mean_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])) == 1 / 3
    True
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1, eps=0.0)
    N = len(unit)
    return (float(unit.sum(0).square().sum()) - N) / (N * (N - 1))


@dataclass
class Cone(FeatureDiagnostic):
    """Mean cosine of pairs of features, not centred: 1 when all point the same way, 0 when they point everywhere.

    Value in [−1/(N−1), 1], exact on the probe over all pairs; unchanged when features are scaled, each by a factor of
    its own, or rotated. After a ReLU it is never below 0. Details: `num_left_out`, samples whose features are zero.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "cone"
    title = "Mean cosine of the features (cone)"
    question = Question.REPRESENTATION
    summary = "Whether the features of all samples point into one narrow cone."
    formula = r"\operatorname*{mean}_{i \ne j} \cos(h_i, h_j)"
    unit = "cosine"
    undefined = "No features (N, D), NaN or Inf in them, or fewer than 2 samples whose features are not zero."
    source = (
        "Liang et al. 2022, Mind the Gap: Understanding the Modality Gap, section 2 (cone effect); for long tails: "
        "Hasegawa, Sato 2023, Exploring Weight Balancing on Long-Tailed Recognition Problem"
    )
    needs = Needs.FEATURES
    tier = Tier.FULL
    interval = 50
    references = (ReferenceLine("all the same way", 1.0, "by the definition"),)

    def of(self, view: FeatureView) -> Reading:
        """Return the mean cosine."""
        features = feature_matrix(view.features)
        kept = features[features.norm(dim=1) > 0]
        if len(kept) < 2:
            raise Missing(f"{len(kept)} samples have features that are not zero: a cosine needs 2")
        return Reading(value=mean_cosine(kept), details={"num_left_out": len(features) - len(kept)})
