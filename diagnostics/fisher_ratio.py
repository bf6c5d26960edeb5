"""Fisher's ratio: how far apart classes lie beside their own spread, direction by direction.

Legend: N samples (or tokens), C classes, D features, r directions in which features vary, Σ_W and Σ_B as in
`neural_collapse`: every class weighs the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainvitals.diagnostics.base import Missing, Needs, Tier
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.diagnostics.neural_collapse import ClassStatistics, statistics
from trainvitals.schema import Question, Reading, Scale


def between_over_within(stats: ClassStatistics) -> float:
    r"""Return tr(Σ_W⁺ Σ_B) in the r directions in which features vary.

    Where Σ_W has no inverse there, the ratio is without bound, and what a pseudo-inverse gives is not it.

    Raises:
        Missing: if features vary in some direction between classes alone, by count or to their own rounding.
    """
    C = len(stats.centred_means)
    within = stats.deviations * stats.weights.sqrt()[:, None]  # (N, D), WᵀW = Σ_W
    between = stats.centred_means / C**0.5  # (C, D), BᵀB = Σ_B
    _, s, Vt = torch.linalg.svd(torch.cat([within, between]), full_matrices=False)
    eps = max(10 * stats.resolution, max(Vt.shape) * torch.finfo(torch.float64).eps)
    size = float(s[0]) + float(stats.centre.norm())
    V = Vt[s > eps * size].T  # (D, r)
    if V.shape[1] == 0:
        raise Missing("the features are the same for every sample")
    _, spread, Q = torch.linalg.svd(within @ V, full_matrices=False)  # (min(N, r),), (min(N, r), r)
    rank = int((spread > eps * size).sum())
    if rank < V.shape[1]:
        raise Missing(
            f"within classes the features vary in {rank} of the {V.shape[1]} directions in which they vary at all: "
            "take more samples, or a narrower layer"
        )
    return float(((between @ V @ Q.T) / spread).square().sum())


@dataclass
class FisherRatio(FeatureDiagnostic):
    """tr(Σ_W⁻¹ Σ_B): the spread of class means in units of the spread within classes.

    Value ≥ 0, exact on the probe; unchanged by any invertible linear map of the features. Needs at least as many
    samples beyond the classes as directions in which features vary: with fewer it is without bound. As classes
    collapse it grows without end; NC1 is then the ratio to look at.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "fisher_ratio"
    title = "Fisher's discriminant ratio"
    question = Question.REPRESENTATION
    summary = "How far apart the classes lie in the features, beside their own spread."
    formula = r"\operatorname{tr}(\Sigma_W^{+} \Sigma_B)"
    undefined = (
        "Fewer than 2 classes, a class absent from the probe batch, features that are not (N, D), or that vary in some "
        "direction between classes alone, as with fewer samples than features."
    )
    source = (
        "Fisher 1936, The use of multiple measurements in taxonomic problems; on features: Hasegawa, Sato 2023, "
        "Exploring Weight Balancing on Long-Tailed Recognition Problem"
    )
    needs = Needs.FEATURES | Needs.OUTPUTS
    tier = Tier.FULL
    interval = 100
    scale = Scale.LOG

    def of(self, view: FeatureView) -> Reading:
        """Return the ratio."""
        return Reading(value=between_over_within(view.once(statistics)))
