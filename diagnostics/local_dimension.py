"""How many dimensions the features fill around a sample, from the growth of its neighbours' distances.

Legend: N samples, D features, k neighbours, T_j the distance of a sample's j-th nearest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, Needs, Tier
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.diagnostics.nearest_neighbours import distances_to_others
from trainvitals.schema import Question, Reading


def local_dimensions(d: Tensor, k: int) -> Tensor:
    """Return each sample's estimate (k−2)/Σ_{j<k} log(T_k/T_j), (n,) in float64.

    With k−2 in place of the maximum likelihood's k−1 it is unbiased where samples lie evenly around the point.
    Samples that have none are left out: a copy of them is in the batch, or their k neighbours are equally far.

    Args:
        d: (N, N) distances, infinite to a sample itself, N > k.
        k: number of neighbours, at least 3.
    """
    nearest = d.topk(k, dim=1, largest=False).values  # (N, k), ascending
    sums = torch.log(nearest[:, -1:] / nearest[:, :-1]).sum(1)  # inf where a distance is 0
    return (k - 2) / sums[(nearest[:, 0] > 0) & (sums > 0)]


@dataclass
class LocalDimension(FeatureDiagnostic):
    """Local intrinsic dimension of the last-layer features, the geometric mean over samples, from k neighbours each.

    Value > 0, exact on the probe; unchanged when features are shifted, scaled or rotated. The estimate takes the
    density as even among the k neighbours: it is low for high dimensions and few samples. Details: `mean`, the
    arithmetic mean, `harmonic_mean`, and `num_left_out`, samples that have a copy in the batch or whose neighbours
    are all equally far.

    Args:
        k: number of neighbours, at least 3; 20 is our choice, within the 10 to 20 of Levina and Bickel.
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "id.local"
    title = "Local intrinsic dimension of the features"
    question = Question.REPRESENTATION
    summary = "How many dimensions the last-layer features fill locally; falls when representations collapse."
    formula = (
        r"\exp\operatorname{mean}_i \log m_i,\ "
        r"m_i = \Bigl(\tfrac{1}{k-2}\sum_{j<k} \log\tfrac{T_k(x_i)}{T_j(x_i)}\Bigr)^{-1}"
    )
    unit = "dimensions"
    undefined = "No last-layer features (N, D), not more than k samples, or samples that are all copies of others."
    source = (
        "Levina, Bickel 2004, Maximum Likelihood Estimation of Intrinsic Dimension; the geometric mean: "
        "Huang et al. 2024, LDReg: Local Dimensionality Regularized Self-Supervised Learning"
    )
    needs = Needs.FEATURES
    tier = Tier.FULL
    interval = 100

    k: int = 20

    def _check_options(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 3:
            raise ValueError(
                f"expected a whole number of at least 3, got k={self.k!r} in options of 'id.local'; try 20"
            )

    def of(self, view: FeatureView) -> Reading:
        """Return the geometric mean of the local dimensions."""
        d = view.once(distances_to_others)
        if len(d) <= self.k:
            raise Missing(f"{len(d)} samples in the probe batch: {self.k} neighbours need {self.k + 1}")
        found = local_dimensions(d, self.k)
        if not len(found):
            raise Missing("every sample has a copy in the batch, or neighbours that are all equally far")
        details = {
            "mean": float(found.mean()),
            "harmonic_mean": float(1 / found.reciprocal().mean()),
            "num_left_out": len(d) - len(found),
        }
        return Reading(value=float(found.log().mean().exp()), details=details)
