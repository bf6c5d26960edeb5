"""The spectrum of the Hessian of the probe loss: both ends, trace and density.

P trainable parameters, k eigenvalues, m Lanczos steps, G grid points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.linalg.density import stochastic_lanczos_quadrature
from trainvitals.diagnostics.linalg.finite import NonFiniteProduct
from trainvitals.diagnostics.linalg.krylov import KrylovBasis
from trainvitals.diagnostics.linalg.lanczos import BREAKDOWN, Eigenpairs, Extremes, lanczos
from trainvitals.diagnostics.linalg.trace import Deflation, hutchinson
from trainvitals.schema import Chart, Question, Reading, Scale

ENGINES = ("native", "pyhessian")
_LANCZOS = "hessian.lanczos"  # names the start vector that all runs on the Hessian share
_UNDEFINED = "a product with the Hessian is not finite (the loss has overflowed or diverged)"


@dataclass
class HessianTop(Diagnostic):
    """The k largest algebraic eigenvalues of the Hessian, λ1 ≥ … ≥ λk, by Lanczos.

    λ_i(∇²L(θ)), i = 1..k, in loss per squared unit of weight. The error of each is the estimate
    min(r, r²/gap) plus the rounding of products, r the residual ‖H y − λ y‖ (in `details`), which is a bound,
    and the gap that to the other Ritz values: an estimate, for it assumes that they show the spectrum next to
    λ, and too small for two eigenvalues closer to each other than r.

    Largest by value, not by size: late in training the largest in size can be negative, and power iteration
    would report that one.

    Args:
        k: how many; fewer are given for a model with fewer parameters.
        tol: relative accuracy of each eigenvalue, by its estimated error; a tenth of the largest stands in
            for smaller ones. With `eigenvectors` the residuals have to meet it.
        max_iterations: most Hessian-vector products; the Krylov basis takes as many vectors of size P.
        eigenvectors: put the unit eigenvectors, (P, k), into `details["eigenvectors"]`.
        verify: look for further copies of eigenvalues (least squares with C outputs has C of each): about a
            quarter of the products.
        engine: "native", or "pyhessian" for a second opinion from that library on a copy of the model.

    Source: Lanczos 1950; as a training diagnostic, Sagun et al. 2017; Ghorbani, Krishnan, Xiao 2019.
    """

    name: ClassVar = "hessian.top"
    group: ClassVar = "hessian"
    title: ClassVar = "Largest Hessian eigenvalues"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The sharpest directions of the loss on the train probe; λ1 is the sharpness."
    formula: ClassVar = r"\lambda_1(\nabla^2 L) \ge \dots \ge \lambda_k(\nabla^2 L)"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = _UNDEFINED
    source: ClassVar = "Ghorbani, Krishnan, Xiao 2019, §3; stopping: Parlett 1998, §13.2"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.DEFAULT
    interval: ClassVar = 100
    chart: ClassVar = Chart.LINES
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "rank"

    k: int = 5
    tol: float = 1e-4
    max_iterations: int = 200
    eigenvectors: bool = False
    verify: bool = True
    engine: str = "native"

    def __post_init__(self) -> None:
        _check_eigenvalue_options(self)
        check_engine(self.name, self.engine)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the k eigenvalues, descending, with keys λ1…λk."""
        if self.engine == "pyhessian":
            from trainvitals.diagnostics.linalg.pyhessian_engine import pyhessian_top

            return pyhessian_top(snapshot, self.k, self.tol, self.max_iterations)
        found = snapshot.once(hessian_extremes)
        keys = tuple(f"λ{i + 1}" for i in range(min(self.k, len(found.top.values))))
        return _reading(found, found.top, keys, self.eigenvectors, found.num_products)


@dataclass
class HessianBottom(Diagnostic):
    """The k smallest algebraic eigenvalues of the Hessian, ascending, from the same Lanczos run as the top.

    Negative ones are directions of negative curvature: the loss is not at a minimum there.

    Args:
        k: how many; fewer are given for a model with fewer parameters.
        tol: relative accuracy of each eigenvalue, by its estimated error, as in `hessian.top`.
        max_iterations: most Hessian-vector products, of the run that both ends share.
        eigenvectors: put the unit eigenvectors, (P, k), into `details["eigenvectors"]`.
        verify: look for further copies of eigenvalues; for k = 1 there is nothing to look for.

    Source: as `hessian.top`.
    """

    name: ClassVar = "hessian.bottom"
    group: ClassVar = "hessian"
    title: ClassVar = "Smallest Hessian eigenvalues"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The most negative curvature of the loss on the train probe: how far from a minimum."
    formula: ClassVar = r"\lambda_P(\nabla^2 L) \le \lambda_{P-1}(\nabla^2 L) \le \dots"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = _UNDEFINED
    source: ClassVar = "Ghorbani, Krishnan, Xiao 2019, §3; stopping: Parlett 1998, §13.2"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.DEFAULT
    interval: ClassVar = 100
    chart: ClassVar = Chart.LINES
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "rank"

    k: int = 1
    tol: float = 1e-4
    max_iterations: int = 200
    eigenvectors: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        _check_eigenvalue_options(self)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the k eigenvalues, ascending, with keys λ−1…λ−k, counted from the lower end."""
        found = snapshot.once(hessian_extremes)
        keys = tuple(f"λ−{i + 1}" for i in range(min(self.k, len(found.bottom.values))))
        shared = _native_top(snapshot) is not None
        reading = _reading(found, found.bottom, keys, self.eigenvectors, 0 if shared else found.num_products)
        return _with_details(reading, shared_with=HessianTop.name) if shared else reading


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
    undefined: ClassVar = _UNDEFINED
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
        if _native_top(snapshot) is not None or snapshot.due(HessianBottom.name) is not None:
            rows, trace = snapshot.once(hessian_extremes).leading
            if len(rows) == self.num_deflated:
                return Deflation(rows, trace), 0
        basis = KrylovBasis(snapshot.hessian, breakdown=BREAKDOWN)
        basis.start_random(snapshot.generator(_LANCZOS))
        while basis.num_products < self.num_deflated and basis.step():
            pass
        return Deflation(*basis.first(self.num_deflated)), basis.num_products


@dataclass
class HessianDensity(Diagnostic):
    """The density of the Hessian's eigenvalues by stochastic Lanczos quadrature.

    ρ(t) = (1/n_v) Σ_l Σ_k τ²_lk g_σ(t − θ_lk), θ the Ritz values of run l, τ the first components of
    the eigenvectors of its T. It integrates to 1: times P it counts eigenvalues. Each value is the mean
    of ρ over its cell of the grid, so no narrow outlier falls between two grid points; the cells are
    fine around 0 and widen outwards, for a symmetric-log axis. The error adds, as squares, the standard error
    over runs and what the last fifth of each run's steps changed: the bias of a finite m.

    Args:
        num_runs: n_v, at least 2 for the error.
        num_steps: m, Lanczos steps of a run; n_v · m products in all.
        broadening: σ as a share of the width of the bulk (the central 98 % of the mass), not of the
            whole range, which an outlier would stretch. Much below 2/m the nodes show as a comb, the same in
            every run of a large model; the error is then wide.
        num_points: G.
        engine: "native"; with "pyhessian" the metric is missing, with the reason.

    Source: Lin, Saad, Yang 2016, §3.2; Ghorbani, Krishnan, Xiao 2019, §2; full reorthogonalisation as
    they advise.
    """

    name: ClassVar = "hessian.density"
    group: ClassVar = "hessian"
    title: ClassVar = "Density of Hessian eigenvalues"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How the curvatures of the loss are spread: the bulk around zero and the outliers."
    formula: ClassVar = r"\rho(t) = \frac{1}{n_v}\sum_l \sum_k \tau_{lk}^2\, g_\sigma(t - \theta_{lk})"
    unit: ClassVar = "weight² / loss"
    undefined: ClassVar = _UNDEFINED
    source: ClassVar = "Lin, Saad, Yang 2016, §3.2; Ghorbani, Krishnan, Xiao 2019, §2"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.DEFAULT
    interval: ClassVar = 500
    chart: ClassVar = Chart.WATERFALL
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "grid"

    num_runs: int = 4
    num_steps: int = 40
    broadening: float = 0.07
    num_points: int = 400
    engine: str = "native"

    def __post_init__(self) -> None:
        check_engine(self.name, self.engine)
        if self.num_runs < 2 or self.num_steps < 2 or self.num_points < 16 or not self.broadening > 0:
            raise ValueError(
                f"expected num_runs ≥ 2, num_steps ≥ 2, num_points ≥ 16 and broadening > 0, got {self.num_runs}, "
                f"{self.num_steps}, {self.num_points} and {self.broadening} in options of {self.name!r}; raise them"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the density on its grid, which stands in `details`."""
        if self.engine == "pyhessian":
            raise Missing(
                "PyHessian's density() calls torch.eig, which torch has removed (since 1.13); use engine='native'"
            )
        with defined():
            found = stochastic_lanczos_quadrature(
                snapshot.hessian, generator=snapshot.generator(self.name), num_runs=self.num_runs,
                num_steps=self.num_steps, broadening=self.broadening, num_points=self.num_points,
            )  # fmt: skip
        return Reading(
            value=found.density, error=found.error, hvps=found.num_products,
            details={"grid": found.grid, "edges": found.edges, "sigma": found.sigma},
        )  # fmt: skip


def hessian_extremes(snapshot: Snapshot) -> Extremes:
    """Return both ends of the spectrum from one Lanczos run for all that is due: call it by `snapshot.once`.

    The run has the tightest tolerance and the largest budget of what is due.
    """
    top, bottom, trace = _native_top(snapshot), snapshot.due(HessianBottom.name), snapshot.due(HessianTrace.name)
    due = [d for d in (top, bottom) if d is not None] or [HessianTop(k=1)]
    # the sharpness is read from the same run, so λ1 is in it whether or not the top is due
    num_top = top.k if top else int(bottom is None or snapshot.due("stability") is not None)
    with defined():
        return lanczos(
            snapshot.hessian, num_top, bottom.k if bottom else 0,
            generator=snapshot.generator(_LANCZOS), tol=min(d.tol for d in due),
            max_iterations=max(d.max_iterations for d in due), vectors=any(d.eigenvectors for d in due),
            verify=any(d.verify for d in due), num_leading=trace.num_deflated if trace else 0,
        )  # fmt: skip


def _native_top(snapshot: Snapshot) -> HessianTop | None:
    """Return `hessian.top` if it is due at this step and computed here."""
    top = snapshot.due(HessianTop.name)
    return top if top is not None and top.engine == "native" else None


@contextmanager
def defined() -> Iterator[None]:
    """Turn a product that is not finite into a missing reading with its reason."""
    try:
        yield
    except NonFiniteProduct as error:
        raise Missing(_UNDEFINED) from error


def check_engine(name: str, engine: str) -> None:
    """Raise ValueError if `engine` is not one of `ENGINES`."""
    if engine not in ENGINES:
        raise ValueError(
            f"expected engine to be one of {', '.join(map(repr, ENGINES))}, got {engine!r} "
            f"in options of {name!r}; leave it out for 'native'"
        )


def _check_eigenvalue_options(options: Any) -> None:
    if options.k < 1 or not options.tol > 0 or options.max_iterations < options.k:
        raise ValueError(
            f"expected k ≥ 1, tol > 0 and max_iterations ≥ k, got k={options.k}, tol={options.tol}, "
            f"max_iterations={options.max_iterations} in options of {options.name!r}; raise them"
        )


def _reading(
    found: Extremes, pairs: Eigenpairs, keys: tuple[str, ...], eigenvectors: bool, num_products: int
) -> Reading:
    k = len(keys)
    details: dict[str, Any] = {
        "residuals": pairs.residuals[:k],
        "converged": pairs.converged[:k],
        "iterations": found.num_products,
        "verified": found.verified,
    }
    if eigenvectors and pairs.vectors is not None:
        details["eigenvectors"] = pairs.vectors[:, :k].cpu().numpy()
    converged = bool(pairs.converged[:k].all() and found.verified)
    values = np.ascontiguousarray(pairs.values[:k])
    return Reading(values, np.ascontiguousarray(pairs.errors[:k]), converged, keys, hvps=num_products,
                   details=details)  # fmt: skip


def _with_details(reading: Reading, **more: Any) -> Reading:
    return Reading(**{**vars(reading), "details": {**reading.details, **more}})
