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
from trainvitals.diagnostics.linalg.hutchpp import hutchpp
from trainvitals.diagnostics.linalg.krylov import KrylovBasis
from trainvitals.diagnostics.linalg.krylov_trace import krylov_trace
from trainvitals.diagnostics.linalg.lanczos import BREAKDOWN
from trainvitals.diagnostics.linalg.trace import Deflation, TraceEstimate, hutchinson
from trainvitals.diagnostics.linalg.xtrace import xtrace
from trainvitals.schema import Question, Reading, Scale

METHODS = ("auto", "hutchinson", "hutch++", "xtrace")
SKETCHES = {"hutch++": hutchpp, "xtrace": xtrace}


@dataclass
class HessianTrace(Diagnostic):
    """The trace of the Hessian by Hutchinson's estimator, with its standard error.

    tr H = tr QᵀHQ + E[zᵀ P H P z], z of independent signs ±1, Q the first vectors of the Lanczos run that
    `hessian.top` makes, P = I − QQᵀ: free of bias, and without the outliers in its variance. Where the top is
    measured at the same step Q costs nothing; elsewhere its few products are made, so the same weights give
    the same number either way. Products go on until the standard error is `tol` of the estimate, at most
    `num_deflated + max_probes`: after `min_probes` probes Q is doubled as long as that takes fewer products than
    the probes it saves (`linalg.krylov_trace`).

    Args:
        tol: relative standard error to stop at; None draws `max_probes`, with no more vectors in Q.
        min_probes: fewest probes, a product each. Below about 10 a standard error is itself a rough guess.
        max_probes: most products beside `num_deflated`, probes or further vectors of Q. A `tol` of 1 % takes some
            hundreds: raise it with a small `tol`.
        num_deflated: vectors in Q at first; 0 is Hutchinson's plain estimator. On a digits CNN during training 12
            to 16 needed the fewest products in all (16: 21 to 41 for 5 %, where the plain one needs 12 to 87).
        method: "auto", as above; "hutchinson", with Q as it is; "hutch++" or "xtrace", which spend all
            `num_deflated + max_probes` products. At 30 to 120 products on twelve small operators "auto" and "xtrace"
            had the smallest errors; the error that XTrace states is the least sure (`linalg.xtrace`).
        engine: "native", or "pyhessian" for a second opinion; that one stops when its running mean
            changes by less than `tol` between two probes, which is no bound on the error.

    Source: Hutchinson 1990; for networks, Yao et al. 2020 (PyHessian), §2; deflation, Meyer et al. 2021
    (Hutch++); on a Krylov space, Chen and Hallman 2023; XTrace, Epperly, Tropp, Webber 2024.
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
    method: str = "auto"
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
        if self.method not in METHODS:
            raise ValueError(
                f"expected method to be one of {', '.join(map(repr, METHODS))}, got {self.method!r} "
                f"in options of {self.name!r}; leave it out for 'auto'"
            )
        if self.method in SKETCHES and self.num_deflated + self.max_probes < 6:
            raise ValueError(
                f"expected num_deflated + max_probes ≥ 6 for method={self.method!r}, got "
                f"{self.num_deflated + self.max_probes} in options of {self.name!r}; raise max_probes"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the estimate and its standard error."""
        if self.engine == "pyhessian":
            from trainvitals.diagnostics.linalg.pyhessian_engine import pyhessian_trace

            return pyhessian_trace(snapshot, self.tol or 0.0, self.max_probes)
        with defined():
            return self._sketched(snapshot) if self.method in SKETCHES else self._deflated(snapshot)

    def _sketched(self, snapshot: Snapshot) -> Reading:
        found = SKETCHES[self.method](
            snapshot.hessian, generator=snapshot.generator(self.name), num_products=self.num_deflated + self.max_probes
        )
        converged = None if self.tol is None else found.standard_error <= self.tol * abs(found.value)
        details = {"num_probes": len(found.samples), "num_deflated": 0, "method": self.method}
        return Reading(found.value, found.standard_error, converged, hvps=found.num_probes, details=details)

    def _deflated(self, snapshot: Snapshot) -> Reading:
        deflation, num_products = self._deflation(snapshot)
        generator = snapshot.generator(self.name)
        num_deflated = len(deflation.rows) if deflation else 0
        if self.method == "auto" and self.tol is not None and deflation is not None and num_deflated:
            grown = krylov_trace(
                snapshot.hessian, deflation, generator=generator, tol=self.tol, min_probes=self.min_probes,
                max_products=self.max_probes,
            )  # fmt: skip
            found, spent, num_deflated = grown.estimate, grown.num_products, num_deflated + grown.num_grown
        else:
            found = hutchinson(
                snapshot.hessian, generator=generator, deflation=deflation, tol=self.tol,
                min_probes=self.min_probes, max_probes=self.max_probes,
            )  # fmt: skip
            spent = found.num_probes
        return _reading(found, num_products + spent, num_deflated, self.method)

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


def _reading(found: TraceEstimate, hvps: int, num_deflated: int, method: str) -> Reading:
    return Reading(
        value=found.value, error=found.standard_error, converged=found.converged, hvps=hvps,
        details={"num_probes": len(found.samples), "num_deflated": num_deflated, "method": method},
    )  # fmt: skip
