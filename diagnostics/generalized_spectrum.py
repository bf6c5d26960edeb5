"""Top eigenvalues of the matrices beside the Hessian: Gauss-Newton and empirical Fisher.

P trainable parameters, k eigenvalues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainvitals.diagnostics.base import Diagnostic, Needs, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import defined
from trainvitals.diagnostics.linalg.fisher import FisherOperator
from trainvitals.diagnostics.linalg.gauss_newton import GaussNewtonOperator
from trainvitals.diagnostics.linalg.lanczos import lanczos
from trainvitals.diagnostics.linalg.through_outputs import ThroughOutputs
from trainvitals.schema import Chart, Question, Reading, Scale


@dataclass
class GaussNewtonTop(Diagnostic):
    """The k largest eigenvalues of the generalised Gauss-Newton matrix, by Lanczos.

    G = mean J_iᵀ ∇²_z ℓ_i J_i is the part of the Hessian that is left where the outputs are taken for
    linear in the weights. The error of each eigenvalue is its residual ‖G y − λ y‖, a bound.

    Args:
        k: how many; fewer are given for a model with fewer parameters.
        tol: tolerance of the residuals, relative to the eigenvalue.
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
        return _top(self, snapshot, GaussNewtonOperator(snapshot.batch_losses(), snapshot.parameters))


@dataclass
class FisherTop(Diagnostic):
    """The k largest eigenvalues of the empirical Fisher matrix, by Lanczos.

    F = (1/N) Σ g_i g_iᵀ over the samples' gradients with the labels of the data: the second moment of the
    gradients, without the mean taken off. The error of each eigenvalue is its residual ‖F y − λ y‖, a bound.

    Args:
        k: how many; fewer are given for a model with fewer parameters.
        tol: tolerance of the residuals, relative to the eigenvalue.
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
        return _top(self, snapshot, FisherOperator(snapshot.batch_losses(), snapshot.parameters))


def _top(options: GaussNewtonTop | FisherTop, snapshot: Snapshot, operator: ThroughOutputs) -> Reading:
    with defined():
        found = lanczos(
            operator, options.k, generator=snapshot.generator(options.name), tol=options.tol,
            max_iterations=options.max_iterations,
        )  # fmt: skip
    pairs = found.top
    details = {
        "residuals": pairs.residuals, "converged": pairs.converged, "iterations": found.num_products,
        "verified": found.verified,
    }  # fmt: skip
    return Reading(
        np.ascontiguousarray(pairs.values), np.ascontiguousarray(pairs.residuals),
        bool(pairs.converged.all() and found.verified), tuple(f"λ{i + 1}" for i in range(len(pairs.values))),
        hvps=found.num_products, details=details,
    )  # fmt: skip


def _check(options: Any) -> None:
    if options.k < 1 or not options.tol > 0 or options.max_iterations < options.k:
        raise ValueError(
            f"expected k ≥ 1, tol > 0 and max_iterations ≥ k, got k={options.k}, tol={options.tol}, "
            f"max_iterations={options.max_iterations} in options of {options.name!r}; raise them"
        )
