"""Neural collapse: do last-layer features of a class meet in one point, and the points in a simplex.

Every class weighs the same whatever its number of samples, so no number depends on class sizes, and
linear algebra runs in float64.

Legend: N samples, C classes, D features, h_i features of sample i, μ_c class means, μ_G their mean,
M the centred class means (C, D), W the classifier's weight (C, D), K = C−1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, Needs, Part, Tier, or_missing
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.schema import Question, Reading, ReferenceLine, Scale

_SOURCE = "Papyan, Han, Donoho 2020, Prevalence of neural collapse during the terminal phase of deep learning training"
_UNDEFINED = "Fewer than 2 classes, a class absent from the probe batch, no classifier, or features that are not (N, D)"


@dataclass(frozen=True)
class ClassStatistics:
    """Class means and what is left within the classes, all in float64.

    Attributes:
        centre: (D,) μ_G, the unweighted mean of the class means.
        centred_means: (C, D) M, rows μ_c − μ_G.
        deviations: (N, D) h_i − μ_c of the sample's own class.
        weights: (N,) 1/(C·N_c): sums over samples with them are means over classes of means over samples.
        labels: (N,).
        resolution: relative rounding of the features' own dtype.
    """

    centre: Tensor
    centred_means: Tensor
    deviations: Tensor
    weights: Tensor
    labels: Tensor
    resolution: float


def class_statistics(features: Tensor, labels: Tensor, num_classes: int) -> ClassStatistics:
    """Return the class statistics of features (N, D) with labels (N,) in 0..C-1.

    Raises:
        Missing: if features are not finite (N, D), there are fewer than 2 classes, or a class is absent.
    """
    if features.ndim != 2 or len(features) != len(labels):
        raise Missing(f"features have shape {tuple(features.shape)}, expected (N, D) with N = {len(labels)}")
    counts = torch.bincount(labels, minlength=num_classes)
    if int((counts > 0).sum()) < 2:
        raise Missing("only one class in the probe batch")
    absent = (counts == 0).nonzero().flatten().tolist()
    if absent:
        raise Missing(f"no sample of class {', '.join(map(str, absent))} in the probe batch")
    if not features.isfinite().all():
        raise Missing("the features hold NaN or Inf")
    h = features.double()
    means = torch.zeros(num_classes, h.shape[1], dtype=h.dtype, device=h.device).index_add_(0, labels, h)
    means /= counts[:, None]
    centre = means.mean(0)
    return ClassStatistics(
        centre, means - centre, h - means[labels], 1.0 / (num_classes * counts[labels].double()), labels,
        torch.finfo(features.dtype).eps,
    )  # fmt: skip


def within_over_between(stats: ClassStatistics) -> float:
    r"""Return tr(Σ_W Σ_B⁺), the pseudo-inverse at rank C−1: the cut is by rank, never by a tolerance.

    With MᵀM/C = V diag(s²) Vᵀ it is Σ_k v_kᵀ Σ_W v_k / s_k² over the C−1 largest s: no D×D matrix is formed.

    Raises:
        Missing: if the centred class means span fewer than C−1 dimensions, by count or to rounding.
    """
    C, D = stats.centred_means.shape
    if C - 1 > D:
        raise Missing(f"{C} class means in {D} features: Σ_B cannot have rank {C - 1}")
    _, s, Vt = torch.linalg.svd(stats.centred_means / C**0.5, full_matrices=False)
    s, V = s[: C - 1], Vt[: C - 1].T  # (K,), (D, K)
    # What is left of means that coincide is rounding: of the features, some ten units of their own dtype
    # relative to their size, and of this float64 product (numpy.linalg.matrix_rank's default tolerance).
    rounding = max(10 * stats.resolution, max(C, D) * torch.finfo(torch.float64).eps)
    rank = int((s > rounding * (float(s[0]) + float(stats.centre.norm()))).sum())
    if rank < C - 1:
        raise Missing(f"the class means coincide or are aligned: they span {rank} dimensions of {C - 1}")
    spread = (stats.deviations @ V).square()  # (N, K)
    return float(((stats.weights @ spread) / s.square()).sum())


def trace_ratio(stats: ClassStatistics) -> float:
    """Return tr Σ_W / tr Σ_B."""
    within = float(stats.weights @ stats.deviations.square().sum(1))
    return within / float(stats.centred_means.square().sum(1).mean())


def cdnv(stats: ClassStatistics) -> float:
    """Return the class-distance normalised variance, the mean over c ≠ c' of (σ_c²+σ_c'²)/(2‖μ_c−μ_c'‖²).

    Source: Galanti, György, Hutter 2022, On the Role of Neural Collapse in Transfer Learning.
    """
    C = len(stats.centred_means)
    variances = torch.zeros(C, dtype=torch.float64, device=stats.labels.device)
    variances.index_add_(0, stats.labels, C * stats.weights * stats.deviations.square().sum(1))  # (C,) σ_c²
    first, second = torch.triu_indices(C, C, 1, device=stats.labels.device)
    # One class at a time against the later ones: (C, D) at most
    distances = torch.cat([(stats.centred_means[c + 1 :] - stats.centred_means[c]).square().sum(1) for c in range(C)])
    return float(((variances[first] + variances[second]) / (2 * distances)).mean())


def norm_variation(rows: Tensor) -> float:
    """Return std/mean of the rows' norms; the deviation is over all C classes, not estimated from them.

    Raises:
        Missing: if all rows are zero.

    >>> norm_variation(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    0.5
    """
    norms = rows.double().norm(dim=1)
    if float(norms.max()) == 0:
        raise Missing("all vectors are zero")
    return float(norms.std(correction=0) / norms.mean())


def angle_deviation(rows: Tensor) -> float:
    """Return the mean over c ≠ c' of abs(cos + 1/(C−1)): 0 for the maximal equal angles of a simplex.

    Raises:
        Missing: if a row is zero.

    >>> angle_deviation(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
    0.0
    """
    C = len(rows)
    norms = rows.double().norm(dim=1, keepdim=True)
    if float(norms.min()) == 0:
        raise Missing("a class's vector is zero, so it has no direction")
    unit = rows.double() / norms
    off_diagonal = ~torch.eye(C, dtype=torch.bool, device=rows.device)
    return float((unit @ unit.T + 1 / (C - 1))[off_diagonal].abs().mean())


def self_duality(weight: Tensor, centred_means: Tensor) -> float:
    """Return ‖W/‖W‖_F − M/‖M‖_F‖²_F, in [0, 4], for W and M of shape (C, D).

    Raises:
        Missing: if one of the two is zero.
    """
    W, M = weight.double(), centred_means.double()
    if float(W.norm()) == 0 or float(M.norm()) == 0:
        raise Missing("the classifier's weight is zero" if float(W.norm()) == 0 else "all class means coincide")
    return float((W / W.norm() - M / M.norm()).square().sum())


def nearest_mean_disagreement(stats: ClassStatistics, outputs: Tensor) -> float:
    """Return the share of samples whose nearest class mean is not the largest output's class."""
    M = stats.centred_means
    centred = stats.deviations + M[stats.labels]  # (N, D) h_i − μ_G
    distances = M.square().sum(1) - 2 * centred @ M.T  # (N, C), less ‖h_i − μ_G‖²
    return float((distances.argmin(1) != outputs.argmax(1)).double().mean())


def statistics(view: FeatureView) -> ClassStatistics:
    """Return the class statistics of a layer, for `FeatureView.once`."""
    labels, num_classes = view.labels()
    return class_statistics(view.features, labels, num_classes)


def classifier_weight(view: FeatureView, shape: Sequence[int]) -> Tensor:
    """Return the weight of the classifier that reads these features, (C, D).

    Raises:
        Missing: if no classifier reads them, or its weight has another shape.
    """
    weight, name = view.classifier.weight, view.classifier.name
    if tuple(weight.shape) != tuple(shape):
        raise Missing(
            f"the last linear layer, {name}, has a weight of shape {tuple(weight.shape)}, a classifier "
            f"of these features has {tuple(shape)}"
        )
    return weight


@dataclass
class WithinClassVariability(FeatureDiagnostic):
    """NC1: tr(Σ_W Σ_B⁺)/C, variability within classes against the spread of their means.

    Value ≥ 0, exact on the probe, 0 when every class is one point. Details: `times_c`, the same without
    /C, as the paper's notebook prints it; `trace_ratio` tr Σ_W/tr Σ_B; `cdnv`. Under label smoothing NC1
    can fall while the trace ratio rises: look at both.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "nc1"
    title = "NC1: variability within classes"
    question = Question.REPRESENTATION
    summary = "Whether the features of a class meet in one point: falls towards 0 as they collapse."
    formula = r"\frac{1}{C}\operatorname{tr}(\Sigma_W \Sigma_B^{+}),\ \operatorname{rank}\Sigma_B^{+} = C-1"
    undefined = f"{_UNDEFINED}; class means that span fewer than C−1 dimensions."
    source = f"{_SOURCE}, NC1 and figure 6"
    needs = Needs.FEATURES | Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 100
    group = "nc"
    scale = Scale.LOG

    def of(self, view: FeatureView) -> Reading:
        """Return NC1."""
        stats = view.once(statistics)
        trace = within_over_between(stats)
        details = {"times_c": trace, "trace_ratio": trace_ratio(stats), "cdnv": cdnv(stats)}
        return Reading(value=trace / len(stats.centred_means), details=details)


@dataclass
class SimplexGeometry(FeatureDiagnostic):
    """NC2: do class means, and the classifier's rows, have equal norms and the angles of a simplex.

    Four numbers ≥ 0, exact on the probe, each 0 for a simplex: std/mean of ‖μ_c−μ_G‖ and of ‖w_c‖ (over
    the C classes, without Bessel's correction), mean abs(cos + 1/(C−1)) over pairs of centred means and of
    rows of W.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "nc2"
    title = "NC2: simplex geometry"
    question = Question.REPRESENTATION
    summary = "Whether class means and classifier rows form a simplex: equal norms, maximal equal angles."
    formula = (
        r"\frac{\operatorname{std}_c\lVert\mu_c-\mu_G\rVert}{\operatorname{mean}_c\lVert\mu_c-\mu_G\rVert},\ "
        r"\operatorname{mean}_{c\ne c'}\left|\cos(\mu_c-\mu_G,\mu_{c'}-\mu_G) + \tfrac{1}{C-1}\right|"
    )
    undefined = f"{_UNDEFINED}; a class's vector that is zero; a last linear layer that is not (C, D), for W."
    source = f"{_SOURCE}, NC2 and figures 2 and 3"
    needs = Needs.FEATURES | Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 100
    group = "nc"
    references = (ReferenceLine("simplex", 0.0, f"{_SOURCE}, NC2"),)
    parts = {
        "norms_means": Part(
            "NC2: norms of class means",
            "Whether class means lie equally far from their centre: 0 when they do.",
            formula=r"\operatorname{std}_c\lVert\mu_c-\mu_G\rVert / \operatorname{mean}_c\lVert\mu_c-\mu_G\rVert",
        ),
        "norms_weights": Part(
            "NC2: norms of classifier rows",
            "Whether the classifier's rows have equal norms: 0 when they do.",
            formula=r"\operatorname{std}_c\lVert w_c\rVert / \operatorname{mean}_c\lVert w_c\rVert",
        ),
        "angles_means": Part(
            "NC2: angles of class means",
            "How far the angles between class means are from a simplex's: 0 at the simplex.",
            formula=r"\operatorname{mean}_{c\ne c'}|\cos(\mu_c-\mu_G, \mu_{c'}-\mu_G) + \tfrac{1}{C-1}|",
        ),
        "angles_weights": Part(
            "NC2: angles of classifier rows",
            "How far the angles between the classifier's rows are from a simplex's: 0 at the simplex.",
            formula=r"\operatorname{mean}_{c\ne c'}|\cos(w_c, w_{c'}) + \tfrac{1}{C-1}|",
        ),
    }

    def of(self, view: FeatureView) -> Mapping[str, Reading]:
        """Return norms and angles of means and of weights."""
        stats = view.once(statistics)
        M = stats.centred_means

        def rows() -> Tensor:
            return classifier_weight(view, M.shape)

        return {
            "norms_means": or_missing(lambda: Reading(value=norm_variation(M))),
            "norms_weights": or_missing(lambda: Reading(value=norm_variation(rows()))),
            "angles_means": or_missing(lambda: Reading(value=angle_deviation(M))),
            "angles_weights": or_missing(lambda: Reading(value=angle_deviation(rows()))),
        }


@dataclass
class SelfDuality(FeatureDiagnostic):
    """NC3: ‖Wᵀ/‖W‖_F − M/‖M‖_F‖²_F, M the centred class means as columns.

    Value in [0, 4], exact on the probe, 0 when the classifier's rows and the class means agree.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "nc3"
    title = "NC3: self-duality"
    question = Question.REPRESENTATION
    summary = "Whether the classifier's rows point to the class means: 0 when they agree up to one scale."
    formula = r"\left\lVert \frac{W^\top}{\lVert W\rVert_F} - \frac{M}{\lVert M\rVert_F} \right\rVert_F^2"
    undefined = f"{_UNDEFINED}; a last linear layer that is not (C, D); W or the centred means zero."
    source = f"{_SOURCE}, NC3 and figure 5"
    needs = Needs.FEATURES | Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 100
    group = "nc"
    scale = Scale.LOG

    def of(self, view: FeatureView) -> Reading:
        """Return NC3."""
        stats = view.once(statistics)
        return Reading(value=self_duality(classifier_weight(view, stats.centred_means.shape), stats.centred_means))


@dataclass
class NearestClassMean(FeatureDiagnostic):
    """NC4: share of samples whose nearest class mean is not the class of the network's largest output.

    Value in [0, 1], exact on the probe; against the network, not the labels.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "nc4"
    title = "NC4: nearest class mean"
    question = Question.REPRESENTATION
    summary = "How often the network decides otherwise than by the nearest class mean: falls to 0 in collapse."
    formula = r"\frac{1}{N}\sum_i 1[\arg\max_c f_c(x_i) \ne \arg\min_c \lVert h_i - \mu_c \rVert]"
    unit = "share of samples"
    undefined = f"{_UNDEFINED}."
    source = f"{_SOURCE}, NC4 and figure 7"
    needs = Needs.FEATURES | Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 100
    group = "nc"

    def of(self, view: FeatureView) -> Reading:
        """Return NC4."""
        return Reading(value=nearest_mean_disagreement(view.once(statistics), view.outputs))
