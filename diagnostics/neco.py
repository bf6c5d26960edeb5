"""NECO: how much of a feature lies in the few directions that the train data's features fill.

Under neural collapse the features of a class meet in one point and the points in a simplex of C−1 dimensions; what the
network was not trained for lies outside it.

Legend: N samples of the train probe, M of the held-out one, D features, d directions, h standardised features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, Needs, Part, Tier, or_missing
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.diagnostics.feature_rank import centred_features
from trainvitals.diagnostics.nearest_neighbours import probe_features
from trainvitals.schema import Question, Reading, ReferenceLine


@dataclass(frozen=True)
class Directions:
    """Principal directions of standardised features."""

    centre: Tensor  # (D,)
    spread: Tensor  # (D,) standard deviation of each feature, 1 where it is constant
    basis: Tensor  # (D, K) orthonormal, largest variance first

    def ratios(self, features: Tensor, dim: int) -> Tensor:
        """Return ‖Ph‖/‖h‖ of features (M, D) for the first `dim` directions, without rows that are the centre."""
        h = (features.double() - self.centre) / self.spread
        norms = h.norm(dim=1)
        kept = norms > 0
        return (h[kept] @ self.basis[:, :dim]).norm(dim=1) / norms[kept]


def directions(view: FeatureView) -> Directions:
    """Return the directions of the train probe's features, for `FeatureView.once`. Raises as `centred_features`."""
    centred = centred_features(view.features)
    deviations = centred.square().mean(0).sqrt()
    rounding = 10 * torch.finfo(view.features.dtype).eps * view.features.double().abs().amax(0)
    spread = torch.where(deviations > rounding, deviations, 1.0)
    _, _, Vt = torch.linalg.svd(centred / spread, full_matrices=False)
    return Directions(view.features.double().mean(0), spread, Vt.T)


@dataclass
class Neco(FeatureDiagnostic):
    """Mean of ‖Ph‖/‖h‖ over the train and over the held-out probe, P the top d principal directions of train features.

    Each in [0, 1]; `error` is the standard error of the mean, for the data that the probe was drawn from. Features are
    standardised by the train probe's mean and deviations, as in the authors' code. Without their factor, the largest
    logit. Held-out data that is unlike the train data scores lower; the paper's score is by sample, for telling them
    apart. With N ≤ d the train part is 1 by construction.

    Args:
        dim: d; the paper tunes it, left out it is C−1, the dimensions of the simplex.
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "neco"
    title = "Features inside the train data's directions (NECO)"
    question = Question.REPRESENTATION
    summary = "How much of a sample's features lies in the main directions of the train data."
    formula = r"\operatorname{mean}_i \lVert P h_i \rVert / \lVert h_i \rVert"
    unit = "share of the norm"
    undefined = (
        "No features (N, D), the same ones for every sample, targets that are not class labels where `dim` is left "
        "out; held-out: no held-out probe."
    )
    source = "Ammar et al. 2024, NECO: NEural Collapse Based Out-of-distribution detection, equation 6 and its code"
    needs = Needs.FEATURES | Needs.OUTPUTS | Needs.HELDOUT | Needs.HELDOUT_FEATURES
    tier = Tier.FULL
    interval = 100
    references = (ReferenceLine("all of it", 1.0, "by the definition"),)
    parts = {
        "train": Part("NECO on the train probe", "How much of train features lies in their own main directions."),
        "heldout": Part(
            "NECO on the held-out probe", "How much of held-out features lies in the train data's main directions."
        ),
    }

    dim: int | None = None

    def _check_options(self) -> None:
        if self.dim is not None and (isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 1):
            raise ValueError(
                f"expected a whole number of at least 1, got dim={self.dim!r} in options of 'neco'; "
                "leave it out for one less than the number of classes"
            )

    def of(self, view: FeatureView) -> Mapping[str, Reading]:
        """Return the mean on both probes."""
        found = view.once(directions)
        dim = self.dim or view.labels()[1] - 1
        if dim > found.basis.shape[1]:
            raise Missing(f"the features have {found.basis.shape[1]} directions, fewer than d = {dim}")
        return {
            "train": or_missing(lambda: _mean(found.ratios(view.features, dim), view.num_train)),
            "heldout": or_missing(lambda: _mean(found.ratios(probe_features(view)[1], dim), view.num_heldout)),
        }


def _mean(ratios: Tensor, num_samples: int) -> Reading:
    if not len(ratios):
        raise Missing("every sample's features are the mean of the train features")
    draws = min(len(ratios), num_samples)  # tokens of one sample are no independent draws
    return Reading(value=float(ratios.mean()), error=float(ratios.std() / draws**0.5) if len(ratios) > 1 else None)
