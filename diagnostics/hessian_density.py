"""The density of the eigenvalues of the Hessian of the probe loss.

P trainable parameters, n_v runs, m Lanczos steps, j deflated eigenvalues, G grid points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import UNDEFINED, check_engine, defined
from trainvitals.diagnostics.linalg.density import stochastic_lanczos_quadrature
from trainvitals.schema import Chart, Question, Reading, Scale


@dataclass
class HessianDensity(Diagnostic):
    """The density of the Hessian's eigenvalues by stochastic Lanczos quadrature.

    ρ(t) = 1/(n_v−1) Σ_{l≥2} [ 1/P Σ_{i≤j} g_σ(t − θ_i) + (P−j)/P Σ_k τ²_lk g_σ(t − θ_lk) ]. The first run only
    looks for eigenvalues; the j that the runs before run l have settled have their exact weight 1/P, and run l
    goes on in the complement of their vectors, θ_lk its Ritz values, τ_lk the first components of the
    eigenvectors of its T. It integrates to 1: times P it counts eigenvalues. Each value is the mean of ρ over
    its cell of the grid, so no narrow outlier falls between two grid points; the cells are fine around 0 and
    widen outwards, for a symmetric-log axis. The error adds, as squares, that of the random starts, what the
    last fifth of each run's steps changed (the bias of a finite m), and the residuals of the j. A model of at
    most n_v · m parameters takes one product for each and has the exact density (`details["exact"]`).

    Args:
        num_runs: n_v, at least 2: the first only looks for eigenvalues.
        num_steps: m, Lanczos steps of a run; n_v · m products in all, and up to 2m vectors of size P in memory.
        broadening: σ as a share of the width of the bulk (the central 98 % of the mass), not of the
            whole range, which an outlier would stretch. Much below 2/m the nodes show as a comb, the same in
            every run of a large model; the error is then wide.
        num_points: G.
        engine: "native"; with "pyhessian" the metric is missing, with the reason.

    Source: Lin, Saad, Yang 2016, §3.2; Ghorbani, Krishnan, Xiao 2019, §2; full reorthogonalisation as
    they advise; deflation, Ubaru, Chen, Saad 2017; Chen and Hallman 2023.
    """

    name: ClassVar = "hessian.density"
    group: ClassVar = "hessian"
    title: ClassVar = "Density of Hessian eigenvalues"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How the curvatures of the loss are spread: the bulk around zero and the outliers."
    formula: ClassVar = (
        r"\rho(t) = \frac{1}{n_v - 1}\sum_{l \ge 2}\Big[\frac{1}{P}\sum_{i \le j} g_\sigma(t - \theta_i)"
        r" + \frac{P - j}{P}\sum_k \tau_{lk}^2\, g_\sigma(t - \theta_{lk})\Big]"
    )
    unit: ClassVar = "weight² / loss"
    undefined: ClassVar = UNDEFINED
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
            details={
                "grid": found.grid, "edges": found.edges, "sigma": found.sigma,
                "num_deflated": found.num_deflated, "exact": found.is_exact,
            },
        )  # fmt: skip
