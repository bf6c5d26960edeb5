"""Traces of the matrices beside the Hessian: Gauss-Newton by random signs, empirical Fisher exactly.

P trainable parameters, N samples, n probe vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainvitals.diagnostics.base import Diagnostic, Needs, Snapshot, Tier
from trainvitals.diagnostics.generalized_spectrum import gauss_newton
from trainvitals.diagnostics.hessian_spectrum import defined
from trainvitals.diagnostics.linalg.trace import hutchinson
from trainvitals.schema import Question, Reading, Scale


@dataclass
class GaussNewtonTrace(Diagnostic):
    """The trace of the Gauss-Newton matrix G by Hutchinson's estimator, with its standard error.

    tr G = E[zᵀGz], z of independent signs ±1. Beside `hessian.trace` it says how much of the curvature the
    samples that are not fitted make: tr H − tr G.

    Args:
        tol: relative standard error to stop at; None draws `max_probes`.
        min_probes: fewest probes, a product with G each, about the price of a Hessian-vector product.
        max_probes: most probes.

    Source: Hutchinson 1990; G, Schraudolph 2002, §3.
    """

    name: ClassVar = "ggn.trace"
    title: ClassVar = "Trace of Gauss-Newton"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The sum of all curvatures, were the outputs linear in the weights."
    formula: ClassVar = r"\operatorname{tr} G = \mathbb{E}_z[z^\top G z],\ z \in \{\pm 1\}^P"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = "the loss does not split into outputs and a loss of them (forward=), or has overflowed"
    source: ClassVar = "Hutchinson 1990; Schraudolph 2002, §3"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200
    scale: ClassVar = Scale.SYMLOG

    tol: float | None = 0.05
    min_probes: int = 12
    max_probes: int = 64

    def __post_init__(self) -> None:
        if not 2 <= self.min_probes <= self.max_probes or (self.tol is not None and not self.tol > 0):
            raise ValueError(
                f"expected 2 ≤ min_probes ≤ max_probes and tol > 0 or None, got min_probes={self.min_probes}, "
                f"max_probes={self.max_probes}, tol={self.tol} in options of {self.name!r}; "
                "a standard error needs at least two probes"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the estimate and its standard error."""
        with defined():
            found = hutchinson(
                snapshot.once(gauss_newton), generator=snapshot.generator(self.name), tol=self.tol,
                min_probes=self.min_probes, max_probes=self.max_probes,
            )  # fmt: skip
        return Reading(
            found.value, found.standard_error, found.converged, hvps=found.num_probes,
            details={"num_probes": found.num_probes},
        )  # fmt: skip


@dataclass
class FisherTrace(Diagnostic):
    """The trace of the empirical Fisher matrix: the mean squared norm of the samples' gradients, exactly.

    tr F = (1/N) Σ ‖g_i‖², with the labels of the data.

    Source: Kunstner, Balles, Hennig 2019, §2.
    """

    name: ClassVar = "fisher.trace"
    title: ClassVar = "Trace of the empirical Fisher matrix"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The mean squared norm of the samples' gradients."
    formula: ClassVar = r"\operatorname{tr} F = \tfrac1N \sum_i \lVert g_i\rVert^2"
    unit: ClassVar = "loss² / weight²"
    undefined: ClassVar = "the loss is not the mean of its samples' losses"
    source: ClassVar = "Kunstner, Balles, Hennig 2019, §2"
    needs: ClassVar = Needs.PER_SAMPLE_GRADIENTS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200
    scale: ClassVar = Scale.LOG

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the trace."""
        return Reading(float(snapshot.gradient_sums.squared_norms.mean()))
