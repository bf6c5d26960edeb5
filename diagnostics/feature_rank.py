"""In how many directions last-layer features vary: ranks that need no cut-off, the spectrum, its condition.

Linear algebra runs in float64.

Legend: N samples, D features, H (N, D) features, K = min(N−1, D) directions in which centred features can vary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, Needs, Tier
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.schema import Chart, Question, Reading, Scale

_UNDEFINED = "No last-layer features of shape (N, D), fewer than 2 samples, NaN or Inf in them"


def feature_matrix(features: Tensor) -> Tensor:
    """Return features (N, D) in float64.

    Raises:
        Missing: if they are not (N, D) with N ≥ 2, hold NaN or Inf, or are all zero.
    """
    if features.ndim != 2 or len(features) < 2:
        raise Missing(f"the features have shape {tuple(features.shape)}, expected (N, D) with N >= 2")
    if not features.isfinite().all():
        raise Missing("the features hold NaN or Inf")
    if not features.any():
        raise Missing("all units of the layer are dead: the features are zero on every sample")
    return features.double()


def centred_features(features: Tensor) -> Tensor:
    """Return features less their mean over samples, (N, D) in float64.

    Raises:
        Missing: as `feature_matrix`, or if the features are the same for every sample, to their own rounding.
    """
    H = feature_matrix(features)
    centred = H - H.mean(0)
    if float(centred.norm()) <= 10 * torch.finfo(features.dtype).eps * float(H.norm()):
        raise Missing("the features are the same for every sample")
    return centred


def effective_rank(singular_values: Tensor) -> float:
    """Return exp(−Σ p log p), p = σ/Σσ: between 1 and the number of singular values above zero.

    >>> round(effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])), 6)
    3.0
    """
    p = singular_values.double() / singular_values.double().sum()
    return float(torch.special.entr(p).sum().exp())


def participation_ratio(eigenvalues: Tensor) -> float:
    """Return (Σλ)²/Σλ²: between 1 and the number of eigenvalues above zero.

    >>> participation_ratio(torch.tensor([1.0, 1.0, 0.0]))
    2.0
    """
    scaled = eigenvalues.double() / eigenvalues.double().max()
    return float(scaled.sum().square() / scaled.square().sum())


def components_for(eigenvalues: Tensor, share: float) -> int:
    """Return how many of the largest eigenvalues hold `share` of their sum.

    >>> components_for(torch.tensor([8.0, 1.0, 1.0]), 0.85)
    2
    """
    held = eigenvalues.double().sort(descending=True).values.cumsum(0)
    return int((held < share * (1 - 1e-12) * held[-1]).sum()) + 1


def _singular_values(view: FeatureView) -> Tensor:
    return torch.linalg.svdvals(feature_matrix(view.features))  # (min(N, D),)


def _deviations(view: FeatureView) -> Tensor:
    """Standard deviations along the principal directions, (K,), largest first."""
    centred = centred_features(view.features)
    N, D = centred.shape
    return torch.linalg.svdvals(centred)[: min(N - 1, D)] / N**0.5


@dataclass
class EffectiveRank(FeatureDiagnostic):
    """exp of the entropy of the normalised singular values of the features H (N, D), not centred.

    Value in [1, min(N, D)], exact on the probe; unchanged when features are scaled or rotated.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "rank.effective"
    title = "Effective rank of the features"
    question = Question.REPRESENTATION
    summary = "In how many directions the last-layer features point; falls when a network loses plasticity."
    formula = r"\exp\Bigl(-\sum_k p_k \log p_k\Bigr),\ p_k = \sigma_k(H) \big/ \sum_j \sigma_j(H)"
    unit = "directions"
    undefined = f"{_UNDEFINED}; all units of the last layer dead."
    source = "Roy, Vetterli 2007, The effective rank, definition 1; Garrido et al. 2023, RankMe, equation 1"
    needs = Needs.FEATURES
    tier = Tier.DEFAULT
    interval = 100

    def of(self, view: FeatureView) -> Reading:
        """Return the effective rank."""
        return Reading(value=effective_rank(view.once(_singular_values)))


@dataclass
class ParticipationRatio(FeatureDiagnostic):
    """(Σλ)²/Σλ² over the eigenvalues λ of the features' covariance (features centred).

    Value in [1, K], exact on the probe; unchanged when features are shifted, scaled or rotated.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "rank.participation"
    title = "Participation ratio of the features"
    question = Question.REPRESENTATION
    summary = "Over how many directions the variance of the last-layer features is spread."
    formula = r"\Bigl(\sum_k \lambda_k\Bigr)^2 \Big/ \sum_k \lambda_k^2,\ \lambda = \lambda(\operatorname{Cov} h)"
    unit = "directions"
    undefined = f"{_UNDEFINED}; all units of the last layer dead, or the same features for every sample."
    source = "Gao, Ganguli et al. 2017, A theory of multineuronal dimensionality, dynamics and measurement"
    needs = Needs.FEATURES
    tier = Tier.FULL
    interval = 50

    def of(self, view: FeatureView) -> Reading:
        """Return the participation ratio."""
        return Reading(value=participation_ratio(view.once(_deviations).square()))


@dataclass
class FeatureSpectrum(FeatureDiagnostic):
    """Standard deviations of the features along their principal directions, largest first.

    Value (min(num, K),), exact on the probe. Details: `variance`, the sum of all squares.

    Args:
        num: how many of the largest are kept.
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "features.spectrum"
    title = "Spectrum of the features"
    question = Question.REPRESENTATION
    summary = "How far the last-layer features spread along each of their principal directions."
    formula = r"\sigma_k(H - \bar h) / \sqrt{N}"
    unit = "standard deviation"
    undefined = f"{_UNDEFINED}; all units of the last layer dead, or the same features for every sample."
    source = "Jolliffe 2002, Principal Component Analysis, section 3.5 (singular values of the centred data)"
    needs = Needs.FEATURES
    tier = Tier.FULL
    interval = 100
    chart = Chart.HEATMAP
    scale = Scale.LOG
    keys = "component"

    num: int = 20

    def _check_options(self) -> None:
        if isinstance(self.num, bool) or not isinstance(self.num, int) or self.num < 1:
            raise ValueError(
                f"expected a whole number of at least 1, got num={self.num!r} in options of 'features.spectrum'; "
                "leave it out for 20"
            )

    def of(self, view: FeatureView) -> Reading:
        """Return the largest standard deviations."""
        deviations = view.once(_deviations)
        kept = deviations[: self.num]
        keys = tuple(str(k + 1) for k in range(len(kept)))
        return Reading(value=kept, keys=keys, details={"variance": float(deviations.square().sum())})


@dataclass
class FeatureComponents(FeatureDiagnostic):
    """Fewest principal components that hold a share of the features' variance.

    A whole number in 1..K, exact on the probe; unchanged when features are shifted, scaled or rotated.

    Args:
        share: of the variance; 0.95 is customary, no theory asks for it.
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "features.components"
    title = "Principal components of the features"
    question = Question.REPRESENTATION
    summary = "How many principal directions of the last-layer features hold most of their variance."
    formula = r"\min\{m : \sum_{k \le m} \lambda_k \ge s \sum_k \lambda_k\},\ \lambda = \lambda(\operatorname{Cov} h)"
    unit = "components"
    undefined = f"{_UNDEFINED}; all units of the last layer dead, or the same features for every sample."
    source = "Jolliffe 2002, Principal Component Analysis, section 6.1.1"
    needs = Needs.FEATURES
    tier = Tier.FULL
    interval = 50

    share: float = 0.95

    def _check_options(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                f"expected 0 < share <= 1, got share={self.share!r} in options of 'features.components'; try 0.95"
            )

    def of(self, view: FeatureView) -> Reading:
        """Return the number of components."""
        return Reading(value=float(components_for(view.once(_deviations).square(), self.share)))


@dataclass
class FeatureCondition(FeatureDiagnostic):
    """Largest over smallest standard deviation of the features along their K principal directions.

    Value ≥ 1, exact on the probe; unchanged when features are shifted, scaled or rotated. With N ≤ D the smallest
    depends on N.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "features.condition"
    title = "Condition number of the features"
    question = Question.REPRESENTATION
    summary = "How unevenly the last-layer features spread: 1 is evenly in all directions."
    formula = r"\sigma_1(H - \bar h) / \sigma_K(H - \bar h),\ K = \min(N-1, D)"
    undefined = f"{_UNDEFINED}; features that do not vary in all K directions, as with a dead unit."
    source = "Golub, Van Loan 2013, Matrix Computations, section 2.6.2 (condition number in the 2-norm)"
    needs = Needs.FEATURES
    tier = Tier.FULL
    interval = 100
    scale = Scale.LOG

    def of(self, view: FeatureView) -> Reading:
        """Return the condition number."""
        deviations, features = view.once(_deviations), view.features
        # numpy.linalg.matrix_rank's default tolerance, in the features' own dtype
        rounding = max(features.shape) * torch.finfo(features.dtype).eps * float(deviations[0])
        rank = int((deviations > rounding).sum())
        if rank < len(deviations):
            raise Missing(f"the features vary in {rank} of {len(deviations)} directions")
        return Reading(value=float(deviations[0] / deviations[-1]))
