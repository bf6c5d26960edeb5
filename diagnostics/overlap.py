"""How much of the gradient and of the weights lies in the sharpest directions.

P trainable parameters, k directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.hessian_spectrum import HessianTop, defined, hessian_extremes
from trainvitals.diagnostics.linalg.lanczos import Eigenpairs, lanczos
from trainvitals.schema import Question, Reading


@dataclass
class Overlap(Diagnostic):
    """The squared share of gradient and weights in the span of the top-k Hessian eigenvectors.

    ‖P_k g‖²/‖g‖² and ‖P_k θ‖²/‖θ‖², P_k the projector on the k eigenvectors of largest eigenvalue; in
    [0, 1]. A random direction has k/P, the part `chance`. The error bounds how far the computed
    subspace can turn the share: ‖R‖_F/(λ_k − λ_{k+1}), R the eigenvectors' residuals (Davis and Kahan). Where
    λ_k and λ_{k+1} are not apart, P_k is not determined: the error is 1 and `converged` false.

    If `hessian.top` is due with eigenvectors and more than k of them, its run is used.

    Args:
        k: directions. Unless told, the number of classes, or 10 where the probe has no labels.
        tol: tolerance of the residuals, relative to the eigenvalue.
        max_iterations: most Hessian-vector products.

    Source: Gur-Ari, Roberts, Dyer 2018, §2 (gradient); the bound, Parlett 1998, §11.7.
    """

    name: ClassVar = "overlap"
    title: ClassVar = "Overlap with the sharpest directions"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How much lies in the span of the top Hessian eigenvectors; chance is k/P."
    formula: ClassVar = r"\lVert P_k g\rVert^2/\lVert g\rVert^2"
    undefined: ClassVar = "the gradient or all weights are zero; the model has no more than k parameters"
    source: ClassVar = "Gur-Ari, Roberts, Dyer 2018, §2"
    needs: ClassVar = Needs.HVP | Needs.GRADIENT | Needs.OUTPUTS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200
    parts: ClassVar = {
        "gradient": Part(
            "Gradient in the sharpest directions", "The share of the gradient in the top Hessian eigenvectors."
        ),
        "weights": Part(
            "Weights in the sharpest directions", "The share of the weights in the top Hessian eigenvectors.",
            formula=r"\lVert P_k \theta\rVert^2/\lVert \theta\rVert^2",
        ),
        "chance": Part("Chance level", "What a random direction has in as many directions.", formula=r"k/P"),
    }  # fmt: skip

    k: int | None = None
    tol: float = 1e-3
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if (self.k is not None and self.k < 1) or not self.tol > 0 or self.max_iterations <= (self.k or 1):
            raise ValueError(
                f"expected k ≥ 1, tol > 0 and max_iterations > k, got k={self.k}, tol={self.tol}, "
                f"max_iterations={self.max_iterations} in options of 'overlap'; raise them"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return both shares and the chance level."""
        k, size = self._rank(snapshot), snapshot.hessian.shape[0]
        if k >= size:
            raise Missing(f"the model has {size} parameters: {k} directions are all of them")
        pairs, num_products = self._pairs(snapshot, k)
        assert pairs.vectors is not None
        basis = pairs.vectors[:, :k].double()  # (P, k)
        error, converged = subspace_error(pairs, k)
        details = {"k": k, "chance": k / size, "gap": float(pairs.values[k - 1] - pairs.values[k])}

        def reading(vectors: Mapping[str, Tensor], hvps: int, name: str) -> Reading:
            share = share_in_span(torch.cat([v.reshape(-1) for v in vectors.values()]), basis, name)
            return Reading(share, error, converged, hvps=hvps, details=details)

        return {
            "gradient": or_missing(lambda: reading(snapshot.gradient, num_products, "gradient")),
            "weights": or_missing(lambda: reading(snapshot.parameters, 0, "vector of weights")),
            "chance": Reading(k / size, details={"k": k}),
        }

    def _rank(self, snapshot: Snapshot) -> int:
        if self.k is not None:
            return self.k
        try:
            return snapshot.train.labels()[1]
        except Missing:
            return 10

    def _pairs(self, snapshot: Snapshot, k: int) -> tuple[Eigenpairs, int]:
        """Return more than k eigenpairs with vectors, and the products spent on them here."""
        top: Any = snapshot.due(HessianTop.name)
        if top is not None and top.engine == "native" and top.eigenvectors and top.k > k:
            return snapshot.once(hessian_extremes).top, 0
        with defined():
            found = lanczos(
                snapshot.hessian, k + 1, tol=self.tol, generator=snapshot.generator(self.name),
                max_iterations=max(self.max_iterations, k + 1), vectors=True,
            )  # fmt: skip
        return found.top, found.num_products


def share_in_span(vector: Tensor, basis: Tensor, name: str) -> float:
    """Return ‖Qᵀv‖²/‖v‖² for v (P,) and orthonormal columns Q (P, k).

    Raises:
        Missing: if v is zero or not finite.
    """
    vector = vector.detach().to(basis)
    square = float(vector @ vector)
    if not 0 < square < float("inf"):
        raise Missing(f"the {name} is {'zero' if square == 0 else 'not finite'}: it has no direction")
    return min(1.0, float((basis.T @ vector).square().sum()) / square)


def subspace_error(pairs: Eigenpairs, k: int) -> tuple[float, bool]:
    """Return a bound on sin of the angle between the computed span and the true one, and whether it says much.

    ‖R‖_F / δ, δ = θ_k − (θ_{k+1} + r_{k+1}), for residuals r. Converged: all k pairs are, and δ > 0.
    """
    gap = float(pairs.values[k - 1] - pairs.values[k] - pairs.residuals[k])
    residual = float(np.linalg.norm(pairs.residuals[:k]))
    if gap <= 0:
        return 1.0, False
    return min(1.0, residual / gap), bool(pairs.converged[:k].all()) and residual < gap
