"""The trace of the Hessian of the probe loss.

P trainable parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainvitals.diagnostics.base import Diagnostic, Needs, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import (
    LANCZOS_START,
    UNDEFINED,
    HessianBottom,
    check_engine,
    defined,
    hessian_extremes,
    native_top,
)
from trainvitals.diagnostics.linalg.krylov import KrylovBasis
from trainvitals.diagnostics.linalg.lanczos import BREAKDOWN
from trainvitals.diagnostics.linalg.trace import Deflation, hutchinson
from trainvitals.schema import Question, Reading, Scale


@dataclass
class HessianTrace(Diagnostic):
    """The trace of the Hessian by Hutchinson's estimator, with its standard error.

    tr H = tr QᵀHQ + E[zᵀ P H P z], z of independent signs ±1, Q the first vectors of the Lanczos run that
    `hessian.top` makes, P = I − QQᵀ: free of bias, and without the outliers in its variance. Where the top is
    measured at the same step Q costs nothing; elsewhere its few products are made, so the same weights give
    the same number either way. Probes are drawn until the standard error is `tol` of the estimate,
    `min_probes` at least and `max_probes` at most.

    Args:
        tol: relative standard error to stop at; None draws `max_probes`.
        min_probes: fewest probes, a product each. Below about 10 a standard error is itself a rough guess.
        max_probes: most probes.
        num_deflated: vectors in Q; 0 is Hutchinson's plain estimator. On a digits CNN during training 12 to 16
            needed the fewest products in all (16: 21 to 41 for 5 %, where the plain one needs 12 to 87).
        engine: "native", or "pyhessian" for a second opinion; that one stops when its running mean
            changes by less than `tol` between two probes, which is no bound on the error.

    Source: Hutchinson 1990; for networks, Yao et al. 2020 (PyHessian), §2; deflation, Meyer et al. 2021
    (Hutch++); on a Krylov space, Chen and Hallman 2023.
    """

    name: ClassVar = "hessian.trace"
    group: ClassVar = "hessian"
    title: ClassVar = "Trace of the Hessian"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The sum of all curvatures of the loss on the train probe."
    formula: ClassVar = (
        r"\operatorname{tr} H = \operatorname{tr} Q^\top H Q + \mathbb{E}_z[(P z)^\top H P z],"
        r"\ z \in \{\pm 1\}^P,\ P = I - QQ^\top"
    )
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = UNDEFINED
    source: ClassVar = "Hutchinson 1990; Meyer et al. 2021, §3; Chen, Hallman 2023"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.DEFAULT
    interval: ClassVar = 100
    scale: ClassVar = Scale.SYMLOG

    tol: float | None = 0.05
    min_probes: int = 12
    max_probes: int = 32
    num_deflated: int = 16
    engine: str = "native"

    def __post_init__(self) -> None:
        check_engine(self.name, self.engine)
        if not 2 <= self.min_probes <= self.max_probes or (self.tol is not None and not self.tol > 0):
            raise ValueError(
                f"expected 2 ≤ min_probes ≤ max_probes and tol > 0 or None, got min_probes={self.min_probes}, "
                f"max_probes={self.max_probes}, tol={self.tol} in options of {self.name!r}; "
                "a standard error needs at least two probes"
            )
        if self.num_deflated < 0:
            raise ValueError(
                f"expected num_deflated ≥ 0, got {self.num_deflated} in options of {self.name!r}; 0 deflates nothing"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the estimate and its standard error."""
        if self.engine == "pyhessian":
            from trainvitals.diagnostics.linalg.pyhessian_engine import pyhessian_trace

            return pyhessian_trace(snapshot, self.tol or 0.0, self.max_probes)
        with defined():
            deflation, num_products = self._deflation(snapshot)
            found = hutchinson(
                snapshot.hessian, generator=snapshot.generator(self.name), deflation=deflation,
                tol=self.tol, min_probes=self.min_probes, max_probes=self.max_probes,
            )  # fmt: skip
        return Reading(
            value=found.value, error=found.standard_error, converged=found.converged,
            hvps=num_products + found.num_probes,
            details={"num_probes": found.num_probes, "num_deflated": len(deflation.rows) if deflation else 0},
        )  # fmt: skip

    def _deflation(self, snapshot: Snapshot) -> tuple[Deflation | None, int]:
        """Return Q with tr QᵀHQ, and the products that it cost: none if the run of `hessian.top` has them."""
        if self.num_deflated == 0:
            return None, 0
        if native_top(snapshot) is not None or snapshot.due(HessianBottom.name) is not None:
            rows, trace = snapshot.once(hessian_extremes).leading
            if len(rows) == self.num_deflated:
                return Deflation(rows, trace), 0
        basis = KrylovBasis(snapshot.hessian, breakdown=BREAKDOWN)
        basis.start_random(snapshot.generator(LANCZOS_START))
        while basis.num_products < self.num_deflated and basis.step():
            pass
        return Deflation(*basis.first(self.num_deflated)), basis.num_products
