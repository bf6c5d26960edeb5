"""Spectral density by stochastic Lanczos quadrature.

P size of the operator, n_v runs, m steps a run, G grid cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr

from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator

BULK_MASS = 0.98  # the central share of the eigenvalues that counts as bulk when σ is set
TAIL = 6.0  # σ beyond the outermost node: the Gaussian's mass beyond is 1e-9


@dataclass(frozen=True)
class SpectralDensity:
    """A density on cells of a grid: `density · diff(edges)` adds up to 1."""

    grid: np.ndarray  # (G,) centres of the cells, ascending
    edges: np.ndarray  # (G + 1,)
    density: np.ndarray  # (G,) mean density over each cell
    standard_error: np.ndarray  # (G,) over the runs
    sigma: float  # standard deviation of the Gaussian put on each node
    nodes: list[np.ndarray]  # n_v × (m,) Ritz values
    weights: list[np.ndarray]  # n_v × (m,) their quadrature weights, adding up to 1
    num_products: int


def stochastic_lanczos_quadrature(
    operator: Operator,
    *,
    generator: torch.Generator,
    num_runs: int = 4,
    num_steps: int = 50,
    broadening: float = 0.02,
    num_points: int = 400,
) -> SpectralDensity:
    """Estimate the density of eigenvalues, each broadened to a Gaussian of width σ.

    ρ(t) = (1/n_v) Σ_l Σ_k τ²_lk g_σ(t − θ_lk): run l starts from a random unit vector, θ are the
    eigenvalues of its T and τ the first components of T's eigenvectors. σ is `broadening` times the
    width of the central 98 % of the mass, so an outlier does not smear the bulk. A bulk that is one point
    (a low-rank matrix) has no width: σ is then 1e-4 of the largest node. The value of a cell is the
    Gaussians' mass in it over its width, exactly, so the density integrates to 1 on any grid.

    Args:
        operator: symmetric, (P, P), with `operator @ v`.
        generator: draws the start vectors, on the CPU.
        num_runs: n_v ≥ 2; the standard error is over runs.
        num_steps: m; a run ends sooner where the Krylov space ends, and is then exact.
        broadening: σ over the width of the bulk.
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
    nodes, weights = [r[0] for r in runs], [r[1] for r in runs]
    sigma = broadening_width(np.concatenate(nodes), np.concatenate(weights), broadening)
    edges = symlog_edges(min(n[0] for n in nodes), max(n[-1] for n in nodes), sigma, num_points)
    each = np.stack([broadened(n, w, sigma, edges) for n, w in zip(nodes, weights, strict=True)])  # (n_v, G)
    error = each.std(0, ddof=1) / math.sqrt(num_runs)
    centres = (edges[1:] + edges[:-1]) / 2
    return SpectralDensity(centres, edges, each.mean(0), error, sigma, nodes, weights, sum(map(len, nodes)))


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


def _quadrature(
    operator: Operator, generator: torch.Generator, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:  # nodes (m,) ascending, weights (m,)
    basis = KrylovBasis(operator)
    basis.start_random(generator)
    while basis.num_products < num_steps and basis.step():
        pass
    values, _, coordinates = basis.ritz()
    return values, coordinates[0] ** 2
