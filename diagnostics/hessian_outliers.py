"""Eigenvalues of the Hessian beyond its bulk: how many, and how far they stretch the problem.

P trainable parameters, C classes, m products, k rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.hessian_spectrum import defined
from trainvitals.diagnostics.linalg.bulk import SETTLED, KrylovSpectrum, find_bulk
from trainvitals.diagnostics.linalg.outliers import Outliers, count_outliers
from trainvitals.schema import Question, Reading, Scale


@dataclass
class HessianOutliers(Diagnostic):
    """The number of Hessian eigenvalues beyond the upper edge of the bulk.

    With cross-entropy, theory and experiment put it at C − 1 or C: `details` holds C − 1 and C where the
    probe has labels. The edge is the lowest gap in the spectrum across which eigenvalues differ by a
    factor `separation` and above which every Ritz value is settled (`linalg.bulk.find_bulk`, where the rule
    stands in full). Counted by Lanczos runs with full reorthogonalisation, so no ghost copies count, each in the
    complement of the outliers found before, so repeated eigenvalues do (`linalg.outliers.count_outliers`). The
    last run rules out, but with a probability of 1e-3, that an eigenvalue which would change the count was
    missed. Where `num_steps` products do not suffice for that, the count so far is given as not converged, with
    the reason in `details["doubt"]`; where they have not even parted outliers from bulk, it is missing.

    Args:
        separation: smallest ratio of two neighbouring eigenvalues, and of an outlier to the bulk's scale, that
            parts outliers from bulk. A choice of this project: 1.5 finds outliers at 1.6 times the edge.
        num_steps: most Hessian-vector products; a run holds one vector of size P for each.

    Source: Sagun et al. 2017, §3; Papyan 2020, §2; reorthogonalisation, Ghorbani, Krishnan, Xiao 2019, §2.
    """

    name: ClassVar = "hessian.outliers"
    group: ClassVar = "hessian"
    title: ClassVar = "Hessian outliers"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How many eigenvalues stand clear of the bulk; often as many as classes, or one fewer."
    formula: ClassVar = r"\#\{i : \lambda_i > \lambda_{\text{edge}}\}"
    undefined: ClassVar = (
        "a product with the Hessian is not finite (the loss has overflowed or diverged); `num_steps` products have "
        "not parted the outliers from the bulk"
    )
    source: ClassVar = "Sagun et al. 2017, §3; Papyan 2020, §2"
    needs: ClassVar = Needs.HVP | Needs.OUTPUTS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500

    separation: float = 1.5
    num_steps: int = 100

    def __post_init__(self) -> None:
        if not self.separation > 1 or self.num_steps < 10:
            raise ValueError(
                f"expected separation > 1 and num_steps ≥ 10, got separation={self.separation}, "
                f"num_steps={self.num_steps} in options of 'hessian.outliers'; leave them out for 1.5 and 100"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the count; edge, scale of the bulk and the outliers themselves stand in `details`."""
        found = snapshot.once(hessian_spectrum_outliers)
        spectrum, bulk = found.spectrum, found.bulk
        details = {
            "edge": bulk.edge, "bulk_scale": bulk.scale, "outliers": spectrum.values[: bulk.num_outliers],
            "residuals": spectrum.residuals[: bulk.num_outliers], **_class_counts(snapshot),
        }  # fmt: skip
        hvps = _own_products(snapshot, self.name, spectrum)
        if found.doubt is None:
            return Reading(float(bulk.num_outliers), converged=True, hvps=hvps, details=details)
        reason = f"{found.doubt} after {spectrum.num_products} products; raise num_steps"
        if not bulk.is_clear:
            return Reading(missing=reason, converged=False, hvps=hvps, details=details)
        details["doubt"] = reason
        return Reading(float(bulk.num_outliers), converged=False, hvps=hvps, details=details)


@dataclass
class HessianCondition(Diagnostic):
    """How unequal the curvatures are: λ1 over λk, and λ1 over the typical size of the bulk.

    `top` is λ1/λk. `bulk` is λ1 over the median of |λ| below the bulk's edge (that of `hessian.outliers`),
    from the quadrature weights of a Lanczos run; |λ|, because the bulk lies on both sides of zero. The error
    of `top` comes from the residuals; that of `bulk` from the two nodes around the median, widened by the
    sampling error 1/√(2P+4) of the mass below it.

    Args:
        k: rank that λ1 is compared with.
        separation: as for `hessian.outliers`.
        num_steps: Hessian-vector products; shared with `hessian.outliers` if both are due.

    Source: Gilmer et al. 2021 (A Loss Curvature Perspective on Training Instability).
    """

    name: ClassVar = "hessian.condition"
    group: ClassVar = "hessian"
    title: ClassVar = "Condition of the Hessian"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How many times sharper the sharpest direction is than others."
    formula: ClassVar = r"\lambda_1/\lambda_k"
    undefined: ClassVar = "λ1 or λk is not positive; the median of the bulk is zero within rounding"
    source: ClassVar = "Gilmer et al. 2021"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    scale: ClassVar = Scale.LOG
    parts: ClassVar = {
        "top": Part("λ1 over λk", "How many times sharper the first direction is than the k-th."),
        "bulk": Part(
            "λ1 over the bulk", "How many times sharper the first direction is than a typical one.",
            formula=r"\lambda_1/\operatorname{median}_{\lambda_i \le \lambda_{\text{edge}}}|\lambda_i|",
        ),
    }  # fmt: skip

    k: int = 5
    separation: float = 1.5
    num_steps: int = 100

    def __post_init__(self) -> None:
        if self.k < 2 or not self.separation > 1 or self.num_steps < max(10, self.k):
            raise ValueError(
                f"expected k ≥ 2, separation > 1 and num_steps ≥ 10 and ≥ k, got k={self.k}, "
                f"separation={self.separation}, num_steps={self.num_steps} in options of 'hessian.condition'; "
                "leave them out for 5, 1.5 and 100"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return both ratios."""
        spectrum = snapshot.once(hessian_spectrum_outliers).spectrum
        if not spectrum.values[0] > 0:
            raise Missing("λ1 is not positive: there is no upward curvature to compare")
        resolution = 100 * torch.finfo(snapshot.hessian.dtype).eps
        hvps = _own_products(snapshot, self.name, spectrum)
        return {
            "top": or_missing(lambda: over_rank(spectrum, self.k, resolution, hvps)),
            "bulk": or_missing(lambda: over_bulk(spectrum, self.separation, resolution, hvps)),
        }


def hessian_spectrum_outliers(snapshot: Snapshot) -> Outliers:
    """Return the Hessian's outliers and bulk, for all that is due: call it by `snapshot.once`.

    The condition asks for more than the count does: where it is due, all products are spent.
    """
    counted, condition = snapshot.due(HessianOutliers.name), snapshot.due(HessianCondition.name)
    due = [d for d in (counted, condition) if d is not None]
    with defined():
        return count_outliers(
            snapshot.hessian, due[0].separation, generator=snapshot.generator(HessianOutliers.name),
            num_steps=max(d.num_steps for d in due), spend_all=condition is not None,
        )  # fmt: skip


def over_rank(spectrum: KrylovSpectrum, k: int, resolution: float, hvps: int = 0) -> Reading:
    """Return λ1/λk with its error from the residuals r: (λ1/λk)(r1/λ1 + rk/λk).

    Raises:
        Missing: if there is no k-th eigenvalue or it is not above the resolution.
    """
    if len(spectrum.values) < k:
        raise Missing(f"the Hessian has {len(spectrum.values)} eigenvalues that were found, fewer than k={k}")
    first, last = spectrum.values[0], spectrum.values[k - 1]
    if not last > resolution * first:
        raise Missing(f"λ{k} = {last:.3g} is not positive")
    relative = spectrum.residuals[[0, k - 1]] / np.array([first, last])
    ratio = float(first / last)
    return Reading(
        ratio, ratio * float(relative.sum()), bool((relative <= SETTLED).all()), hvps=hvps, details={"k": k}
    )  # fmt: skip


def over_bulk(spectrum: KrylovSpectrum, separation: float, resolution: float, hvps: int = 0) -> Reading:
    """Return λ1 over the median of |λ| in the bulk.

    Raises:
        Missing: if that median is zero within rounding.
    """
    bulk = find_bulk(spectrum, separation)
    sizes, weights = np.abs(spectrum.values[bulk.num_outliers :]), spectrum.weights[bulk.num_outliers :]
    order = np.argsort(sizes)
    sizes, mass = sizes[order], np.cumsum(weights[order]) / weights.sum()
    middle = min(int(np.searchsorted(mass, 0.5)), len(sizes) - 1)
    if not len(sizes) or not sizes[middle] > resolution * spectrum.values[0]:
        raise Missing("the median curvature of the bulk is zero within rounding")
    spread = 0.0 if spectrum.is_whole else 1 / math.sqrt(2 * spectrum.size + 4)
    lower, upper = np.searchsorted(mass, [0.5 - spread, 0.5 + spread])
    around = sizes[[max(0, lower - 1), min(len(sizes) - 1, upper + 1)]]
    ratio = float(spectrum.values[0] / sizes[middle])
    error = 0.0 if spectrum.is_whole else ratio * float(around[1] - around[0]) / 2 / float(sizes[middle])
    return Reading(ratio, error, hvps=hvps, details={"edge": bulk.edge, "median": float(sizes[middle])})


def _own_products(snapshot: Snapshot, name: str, spectrum: KrylovSpectrum) -> int:
    """Return the products to book on a diagnostic: the run is booked once, on the outliers if they are due."""
    shared = name != HessianOutliers.name and snapshot.due(HessianOutliers.name) is not None
    return 0 if shared else spectrum.num_products


def _class_counts(snapshot: Snapshot) -> dict[str, Any]:
    try:
        _, num_classes = snapshot.train.labels()
    except Missing:
        return {}
    return {"num_classes": num_classes, "expected": (num_classes - 1, num_classes)}
