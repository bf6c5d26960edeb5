"""Spectral density by stochastic Lanczos quadrature.

P size of the operator, n_v runs, m steps a run, G grid cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from scipy.stats import t as student_t

from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator

BULK_MASS = 0.98  # the central share of the eigenvalues that counts as bulk when σ is set
COARSE = 0.8  # the share of a run's steps that its error is judged by: how much the rest of them changed
TAIL = 6.0  # σ beyond the outermost node: the Gaussian's mass beyond is 1e-9


@dataclass(frozen=True)
class SpectralDensity:
    """A density on cells of a grid: `density · diff(edges)` adds up to 1."""

    grid: np.ndarray  # (G,) centres of the cells, ascending
    edges: np.ndarray  # (G + 1,)
    density: np.ndarray  # (G,) mean density over each cell
    error: np.ndarray  # (G,) over the runs, and of too few steps
    sigma: float  # standard deviation of the Gaussian put on each node
    nodes: list[np.ndarray]  # n_v × (m,) Ritz values
    weights: list[np.ndarray]  # n_v × (m,) their quadrature weights, adding up to 1
    num_products: int


def stochastic_lanczos_quadrature(
    operator: Operator,
    *,
    generator: torch.Generator,
    num_runs: int = 4,
    num_steps: int = 40,
    broadening: float = 0.07,
    num_points: int = 400,
) -> SpectralDensity:
    """Estimate the density of eigenvalues, each broadened to a Gaussian of width σ.

    ρ(t) = (1/n_v) Σ_l Σ_k τ²_lk g_σ(t − θ_lk): run l starts from a random unit vector, θ are the
    eigenvalues of its T and τ the first components of T's eigenvectors. σ is `broadening` times the
    width of the central 98 % of the mass, so an outlier does not smear the bulk. A bulk that is one point
    (a low-rank matrix) has no width: σ is then 1e-4 of the largest node. The value of a cell is the
    Gaussians' mass in it over its width, exactly, so the density integrates to 1 on any grid.

    The error has two parts, added as squares: the standard error over the runs, and the bias of m steps,
    judged by what the last fifth of them changed. On a large operator runs agree closely, and a σ finer than
    the nodes lie (width of the bulk / m) gives the same comb in each: only the second part shows it.

    Args:
        operator: symmetric, (P, P), with `operator @ v`.
        generator: draws the start vectors, on the CPU.
        num_runs: n_v ≥ 2; the error is over runs.
        num_steps: m; a run ends sooner where the Krylov space ends, and is then exact.
        broadening: σ over the width of the bulk. Below about 2/m the nodes show as a comb, and the error says so.
        num_points: G.

    Raises:
        ValueError: if there are fewer than two runs.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Lin, Saad, Yang 2016, §3.2; Ghorbani, Krishnan, Xiao 2019, §2.

    Example:
        >>> A = torch.diag(torch.linspace(-1, 1, 50))
        >>> found = stochastic_lanczos_quadrature(A, generator=torch.Generator().manual_seed(0))
        >>> round(float((found.density * np.diff(found.edges)).sum()), 6)
        1.0
    """
    if num_runs < 2:
        raise ValueError(
            f"expected num_runs ≥ 2, got {num_runs} in stochastic_lanczos_quadrature; the error is over runs"
        )
    runs = [_quadrature(operator, generator, num_steps) for _ in range(num_runs)]
    nodes, weights = [r[0][0] for r in runs], [r[0][1] for r in runs]
    sigma = broadening_width(np.concatenate(nodes), np.concatenate(weights), broadening)
    edges = symlog_edges(min(n[0] for n in nodes), max(n[-1] for n in nodes), sigma, num_points)
    fine, coarse = (np.stack([broadened(*r[i], sigma, edges) for r in runs]) for i in (0, 1))  # (n_v, G)
    # few runs tell their own spread badly: scaled so that twice the error is Student's 95 % interval
    over_runs = student_t.ppf(0.975, num_runs - 1) / 2 * fine.std(0, ddof=1) / math.sqrt(num_runs)
    error = np.hypot(over_runs, fine.mean(0) - coarse.mean(0))
    centres = (edges[1:] + edges[:-1]) / 2
    return SpectralDensity(centres, edges, fine.mean(0), error, sigma, nodes, weights, sum(map(len, nodes)))


def broadened(nodes: np.ndarray, weights: np.ndarray, sigma: float, edges: np.ndarray) -> np.ndarray:
    """Return the mean over each cell of Σ_k w_k g_σ(t − θ_k), (G,), for nodes and weights (m,)."""
    mass = ndtr((edges[:, None] - nodes) / sigma) @ weights  # (G + 1,) up to each edge
    return np.diff(mass) / np.diff(edges)


def broadening_width(nodes: np.ndarray, weights: np.ndarray, broadening: float) -> float:
    """Return σ: `broadening` times the width of the central 98 % of the mass."""
    order = np.argsort(nodes)
    mass = np.cumsum(weights[order]) / weights.sum()
    tail = (1 - BULK_MASS) / 2
    lower, upper = nodes[order][np.searchsorted(mass, [tail, 1 - tail])]
    width, largest = float(upper - lower), float(np.abs(nodes).max())
    if width > 1e-5 * largest:  # narrower is a point, blurred by rounding in float32
        return broadening * width
    return 1e-4 * largest or 1.0  # the zero operator has no scale at all


def symlog_edges(lowest: float, highest: float, sigma: float, num_cells: int) -> np.ndarray:
    """Return G + 1 edges, even in asinh(t / 5σ): fine around 0, widening as a logarithm outside."""
    unit = 5 * sigma
    ends = np.arcsinh(np.array([lowest - TAIL * sigma, highest + TAIL * sigma]) / unit)
    return unit * np.sinh(np.linspace(float(ends[0]), float(ends[1]), num_cells + 1))


Quadrature = tuple[np.ndarray, np.ndarray]  # nodes (m,) ascending, weights (m,)


def _quadrature(operator: Operator, generator: torch.Generator, num_steps: int) -> tuple[Quadrature, Quadrature]:
    """Return the quadrature of one run, and the one that its first steps alone would have given."""
    basis = KrylovBasis(operator)
    basis.start_random(generator)
    goes_on = True
    while basis.num_products < num_steps and (goes_on := basis.step()):
        pass
    fine = basis.quadrature(basis.num_products)
    # a run that has come to the end of its space is exact: there is nothing that more steps would change
    return fine, basis.quadrature(math.ceil(COARSE * basis.num_products)) if goes_on else fine
