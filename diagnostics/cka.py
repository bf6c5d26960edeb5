r"""How alike two representations of the same samples are: linear CKA with the unbiased estimator of HSIC.

Both are invariant to rotating and scaling the features. The estimator of HSIC has no bias from few samples, so the
level does not rise with the number of features as it does for the usual plug-in.

Legend: N samples, X (N, D) and Y (N, E) features, K = XXᵀ and U its U-centred form (N, N).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.schema import Chart, Question, Reading, ReferenceLine

_SOURCE = (
    "Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, section 3 (CKA); "
    "Song et al. 2012, Feature Selection via Dependence Maximization (unbiased HSIC)"
)
_SAME = (ReferenceLine("the same up to rotation and scale", 1.0, "by the definition"),)


def u_centred(features: Tensor) -> Tensor:
    r"""Return the U-centred Gram matrix of features, (N, N) in float64, scaled to unit Frobenius norm.

    With K = XXᵀ less its diagonal, U_ij = K_ij − K_i./(N−2) − K_.j/(N−2) + K_../((N−1)(N−2)) off the diagonal and 0
    on it; then Song's unbiased estimator is HSIC(X, Y) = Σ_ij U_ij V_ij / (N(N−3)) (U-centring: Székely, Rizzo 2014).

    Args:
        features: (N, ...), flattened to (N, D).

    Raises:
        Missing: if N < 4, features hold NaN or Inf, are the same for every sample to their own rounding, or all
            samples are equally far apart, which no two of them tell from others.
    """
    N = len(features)
    if N < 4:
        raise Missing(f"{N} samples in the probe batch: the unbiased HSIC needs 4")
    if not features.isfinite().all():
        raise Missing("the features hold NaN or Inf")
    X = features.flatten(1).double()
    centred = X - X.mean(0)  # changes nothing in exact arithmetic, and keeps digits
    if float(centred.norm()) <= 10 * torch.finfo(features.dtype).eps * float(X.norm()):
        raise Missing("the features are the same for every sample")
    K = (centred @ centred.T).fill_diagonal_(0)
    rows = K.sum(1) / (N - 2)
    U = (K - rows[:, None] - rows[None, :] + rows.sum() / (N - 1)).fill_diagonal_(0)
    if float(U.norm()) <= 1e-12 * float(centred.square().sum()):
        raise Missing("all samples are equally far apart in the features, which leaves nothing to compare")
    return U / U.norm()


def cka_of(U: Tensor, V: Tensor) -> float:
    """Return CKA = HSIC(X, Y)/√(HSIC(X, X) HSIC(Y, Y)) of two U-centred Gram matrices of unit norm."""
    return float((U * V).sum())


def linear_cka(X: Tensor, Y: Tensor) -> float:
    """Return the unbiased linear CKA of features (N, ...) and (N, ...) of the same N ≥ 4 samples.

    1 for features that are the same up to rotation and scale; around 0, and below it too, for unrelated ones.

    Raises:
        Missing: as `u_centred`.

    >>> X = torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> round(linear_cka(X, 5 * X[:, [2, 0, 1]] + 1), 12)
    1.0
    """
    return cka_of(u_centred(X), u_centred(Y))


@dataclass(frozen=True)
class _Kept:
    """Representations by layer at one step, as U-centred Gram matrices, and why other layers have none."""

    step: int
    grams: Mapping[str, Tensor]  # (N, N) on the CPU
    left_out: Mapping[str, str]


def _keep(step: int, layers: Mapping[str, Tensor]) -> _Kept:
    grams, left_out = {}, {}
    for name, features in layers.items():
        try:
            grams[name] = u_centred(features).cpu()
        except Missing as reason:
            left_out[name] = str(reason)
    if not grams:
        raise Missing("; ".join(dict.fromkeys(left_out.values())))
    return _Kept(step, grams, left_out)


def _against(now: _Kept, then: _Kept | None) -> Reading:
    if then is None:
        raise Missing("this is the first measurement: there is no earlier one to compare with")
    shared = [name for name in now.grams if name in then.grams and now.grams[name].shape == then.grams[name].shape]
    if not shared:
        raise Missing("no layer has features to compare both now and then")
    values = torch.tensor([cka_of(now.grams[name], then.grams[name]) for name in shared], dtype=torch.float64)
    left_out = {**then.left_out, **now.left_out}
    return Reading(value=values, keys=tuple(shared), details={"step": then.step, "left_out": left_out})


def _scalar(reading: Reading) -> Reading:
    return Reading(value=float(reading.value[0]), details={"step": reading.details["step"]})


@dataclass
class FeatureCka(Diagnostic):
    """Linear CKA of the last-layer features with those at the first and at the previous measurement of the run.

    At most 1, exact on the probe; the estimator of HSIC is unbiased, so unrelated features scatter around 0.
    Details: `step`, the one compared with. It remembers: an instance's first measurement has nothing to compare
    with. No options.
    """

    _first: _Kept | None = field(default=None, init=False, repr=False)
    _previous: _Kept | None = field(default=None, init=False, repr=False)

    name = "cka"
    title = "Similarity of the features (CKA)"
    question = Question.REPRESENTATION
    summary = "Whether the last-layer features are still changing: 1 is unchanged up to rotation and scale."
    formula = r"\mathrm{HSIC}(X, Y) \big/ \sqrt{\mathrm{HSIC}(X, X)\,\mathrm{HSIC}(Y, Y)}"
    undefined = (
        "The first measurement; no last-layer features, fewer than 4 samples, NaN or Inf, or the same features for "
        "every sample."
    )
    source = _SOURCE
    needs = Needs.FEATURES
    tier = Tier.FULL
    interval = 50
    references = _SAME
    parts = {
        "initial": Part(
            "Similarity of the features to the first ones (CKA)",
            "How much of the run's first last-layer features is left: 1 is all of it.",
        ),
        "previous": Part(
            "Similarity of the features to the previous ones (CKA)",
            "Whether the last-layer features still change from one measurement to the next: 1 is unchanged.",
        ),
    }

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the similarity to the first and to the previous measurement."""
        now = _keep(snapshot.step, {"features": snapshot.features})
        first, previous = self._first, self._previous
        self._first, self._previous = first or now, now
        return {
            "initial": or_missing(lambda: _scalar(_against(now, first))),
            "previous": or_missing(lambda: _scalar(_against(now, previous))),
        }


@dataclass
class LayerCka(Diagnostic):
    """Linear CKA of every layer's activations: with the first and the previous measurement, and with the next layer.

    `initial` and `previous` are (L,) in the order of the forward pass, `adjacent` (L−1,) with keys "layer → next".
    Each at most 1, exact on the samples used; activations are flattened, channels and positions alike. Details:
    `step`, the one compared with, and `left_out`, layers without a value and why. It remembers one matrix of
    samples × samples for each layer, twice.

    Args:
        max_samples: of the probe are used, the first ones: bounds time and memory. The estimator has no bias from
            few samples, only more scatter.
    """

    max_samples: int = 256
    _first: _Kept | None = field(default=None, init=False, repr=False)
    _previous: _Kept | None = field(default=None, init=False, repr=False)

    name = "cka.layers"
    title = "Similarity by layer (CKA)"
    question = Question.REPRESENTATION
    summary = "Which layers are still changing, and which say the same as the next: 1 is the same."
    formula = FeatureCka.formula
    undefined = (
        "The first measurement, but for neighbouring layers; no non-linearity found in the forward pass, fewer than 4 "
        "samples; a layer with NaN or Inf, or the same activations for every sample."
    )
    source = _SOURCE
    needs = Needs.ACTIVATIONS
    tier = Tier.FULL
    is_slow = True
    interval = 200
    chart = Chart.HEATMAP
    keys = "layer"
    references = _SAME
    parts = {
        "initial": Part(
            "Similarity of each layer to its first activations (CKA)",
            "How much of its first activations is left in each layer: 1 is all of it.",
        ),
        "previous": Part(
            "Similarity of each layer to its previous activations (CKA)",
            "Which layers still change from one measurement to the next: 1 is unchanged.",
        ),
        "adjacent": Part(
            "Similarity of neighbouring layers (CKA)",
            "Which layers say the same as the one before: 1 is the same up to rotation and scale.",
        ),
    }

    def __post_init__(self) -> None:
        if isinstance(self.max_samples, bool) or not isinstance(self.max_samples, int) or self.max_samples < 4:
            raise ValueError(
                f"expected a whole number of at least 4, got max_samples={self.max_samples!r} in options of "
                "'cka.layers'; leave it out for 256"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the similarity to the first and the previous measurement, and between neighbours."""
        layers = {name: h[: self.max_samples] for name, h in snapshot.activations.items()}
        if not layers:
            raise Missing("no non-linearity was found in the forward pass")
        now = _keep(snapshot.step, layers)
        first, previous = self._first, self._previous
        self._first, self._previous = first or now, now
        return {
            "initial": or_missing(lambda: _against(now, first)),
            "previous": or_missing(lambda: _against(now, previous)),
            "adjacent": or_missing(lambda: _adjacent(now)),
        }


def _adjacent(now: _Kept) -> Reading:
    pairs = list(pairwise(now.grams))
    if not pairs:
        raise Missing("only one layer has activations to compare")
    values = torch.tensor([cka_of(now.grams[a], now.grams[b]) for a, b in pairs], dtype=torch.float64)
    return Reading(value=values, keys=tuple(f"{a} → {b}" for a, b in pairs), details={"left_out": dict(now.left_out)})
