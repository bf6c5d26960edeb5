"""Eigenvalues of the matrices beside the Hessian: Gauss-Newton, what it leaves of the Hessian, empirical Fisher.

P trainable parameters, k eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainvitals.diagnostics.base import Diagnostic, Needs, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import defined
from trainvitals.diagnostics.linalg.difference import DifferenceOperator
from trainvitals.diagnostics.linalg.fisher import FisherOperator
from trainvitals.diagnostics.linalg.gauss_newton import GaussNewtonOperator
from trainvitals.diagnostics.linalg.krylov import Operator
from trainvitals.diagnostics.linalg.lanczos import lanczos
from trainvitals.schema import Chart, Question, Reading, Scale


@dataclass
class GaussNewtonTop(Diagnostic):
    """The k largest eigenvalues of the generalised Gauss-Newton matrix, by Lanczos.

    G = mean J_iᵀ ∇²_z ℓ_i J_i is the part of the Hessian that is left where the outputs are taken for
    linear in the weights. The error of each eigenvalue is estimated as in `hessian.top`.

    Args:
        k: how many; fewer are given for a model with fewer parameters.
        tol: relative accuracy of each eigenvalue, by its estimated error.
        max_iterations: most products with G, each about the price of a Hessian-vector product.

    Source: Schraudolph 2002, §3; as the part that makes the outliers, Papyan 2019, §2.
    """

    name: ClassVar = "ggn.top"
    title: ClassVar = "Largest Gauss-Newton eigenvalues"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The sharpest directions of the loss, were the outputs linear in the weights."
    formula: ClassVar = r"\lambda_i\left(\tfrac1N \sum_i J_i^\top \nabla_z^2 \ell_i\, J_i\right)"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = "the loss does not split into outputs and a loss of them (forward=), or has overflowed"
    source: ClassVar = "Schraudolph 2002, §3; Papyan 2019, §2"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200
    chart: ClassVar = Chart.LINES
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "rank"

    k: int = 5
    tol: float = 1e-3
    max_iterations: int = 200

    def __post_init__(self) -> None:
        _check(self)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the k eigenvalues, descending, with keys λ1…λk."""
        return _reading(self, snapshot, snapshot.once(gauss_newton))


@dataclass
class GaussNewtonResidual(Diagnostic):
    """Both ends of what the Gauss-Newton matrix leaves of the Hessian, R = H − G, by Lanczos.

    R = mean Σ_c ∂ℓ_i/∂z_c ∇²z_c(x_i): the curvature that the outputs have themselves, weighted by how far each
    sample is from being fitted. It is indefinite, and 0 where the outputs are linear in the weights or all
    samples are fitted; there the Hessian is G. The error of each eigenvalue is estimated as in `hessian.top`.

    Args:
        k: how many of each end; fewer are given for a model with fewer parameters.
        tol: relative accuracy of each eigenvalue, by its estimated error.
        max_iterations: most products with R, each a Hessian-vector product and a product with G.

    Source: Schraudolph 2002, §3; named and followed through training by Papyan 2019, §2.
    """

    name: ClassVar = "ggn.residual"
    title: ClassVar = "Curvature beside Gauss-Newton"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The ends of H − G: the curvature that samples not yet fitted add and take away."
    formula: ClassVar = r"\lambda_{\pm i}(\nabla^2 L - G)"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = "the loss does not split into outputs and a loss of them (forward=), or has overflowed"
    source: ClassVar = "Schraudolph 2002, §3; Papyan 2019, §2"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200
    chart: ClassVar = Chart.LINES
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "rank"

    k: int = 1
    tol: float = 1e-3
    max_iterations: int = 200

    def __post_init__(self) -> None:
        _check(self)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return k eigenvalues of each end: λ1…λk descending, then λ−1…λ−k ascending."""
        operator = DifferenceOperator(snapshot.hessian, snapshot.once(gauss_newton))
        return _reading(self, snapshot, operator, num_bottom=self.k)


@dataclass
class FisherTop(Diagnostic):
    """The k largest eigenvalues of the empirical Fisher matrix, by Lanczos.

    F = (1/N) Σ g_i g_iᵀ over the samples' gradients with the labels of the data: the second moment of the
    gradients, without the mean taken off. The error of each eigenvalue is estimated as in `hessian.top`.

    Args:
        k: how many; fewer are given for a model with fewer parameters.
        tol: relative accuracy of each eigenvalue, by its estimated error.
        max_iterations: most products with F, each about the price of a Hessian-vector product.

    Source: Kunstner, Balles, Hennig 2019, §2.
    """

    name: ClassVar = "fisher.top"
    title: ClassVar = "Largest empirical Fisher eigenvalues"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The directions in which the samples' gradients are largest."
    formula: ClassVar = r"\lambda_i\left(\tfrac1N \sum_i g_i g_i^\top\right)"
    unit: ClassVar = "loss² / weight²"
    undefined: ClassVar = "the loss does not split (forward=), or is not the mean of its samples' losses"
    source: ClassVar = "Kunstner, Balles, Hennig 2019, §2"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200
    chart: ClassVar = Chart.LINES
    scale: ClassVar = Scale.LOG
    keys: ClassVar = "rank"

    k: int = 5
    tol: float = 1e-3
    max_iterations: int = 200

    def __post_init__(self) -> None:
        _check(self)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the k eigenvalues, descending, with keys λ1…λk."""
        return _reading(self, snapshot, FisherOperator(snapshot.batch_losses(), snapshot.parameters, snapshot.products))


def gauss_newton(snapshot: Snapshot) -> GaussNewtonOperator:
    """Return G of the train probe, whose graphs all that needs it share: call it by `snapshot.once`."""
    return GaussNewtonOperator(snapshot.batch_losses(), snapshot.parameters, snapshot.products)


def _reading(options: Any, snapshot: Snapshot, operator: Operator, num_bottom: int = 0) -> Reading:
    with defined():
        found = lanczos(
            operator, options.k, num_bottom, generator=snapshot.generator(options.name), tol=options.tol,
            max_iterations=max(options.max_iterations, options.k + num_bottom),
        )  # fmt: skip
    ends = (found.top, found.bottom)
    residuals, converged = (np.concatenate([getattr(e, part) for e in ends]) for part in ("residuals", "converged"))
    keys = [f"λ{sign}{i + 1}" for sign, end in zip(("", "−"), ends, strict=True) for i in range(len(end.values))]
    return Reading(
        np.concatenate([end.values for end in ends]), np.concatenate([end.errors for end in ends]),
        bool(converged.all() and found.verified), tuple(keys), hvps=found.num_products,
        details={"residuals": residuals, "converged": converged, "iterations": found.num_products,
                 "verified": found.verified},
    )  # fmt: skip


def _check(options: Any) -> None:
    if options.k < 1 or not options.tol > 0 or options.max_iterations < options.k:
        raise ValueError(
            f"expected k ≥ 1, tol > 0 and max_iterations ≥ k, got k={options.k}, tol={options.tol}, "
            f"max_iterations={options.max_iterations} in options of {options.name!r}; raise them"
        )
