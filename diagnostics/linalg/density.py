"""Spectral density by stochastic Lanczos quadrature with deflation.

P size of the operator, n_v runs, m steps a run, j deflated eigenvectors, D = P − j, G grid cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr

from trainvitals.diagnostics.linalg.complement import Complement
from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator
from trainvitals.diagnostics.linalg.whole_spectrum import whole_spectrum

BULK_MASS = 0.98  # the central share of the eigenvalues that counts as bulk when σ is set
COARSE = 0.8  # the share of a run's steps that its error is judged by: how much the rest of them changed
SETTLED = 0.02  # residual over σ at which a Ritz pair is deflated: no more than that is its place uncertain
TAIL = 6.0  # σ beyond the outermost node: the Gaussian's mass beyond is 1e-9

Quadrature = tuple[np.ndarray, np.ndarray]  # nodes (m,) ascending, weights (m,)


@dataclass(frozen=True)
class SpectralDensity:
    """A density on cells of a grid: `density · diff(edges)` adds up to 1."""

    grid: np.ndarray  # (G,) centres of the cells, ascending
    edges: np.ndarray  # (G + 1,)
    density: np.ndarray  # (G,) mean density over each cell
    error: np.ndarray  # (G,) of the random starts, of too few steps, and of the deflated eigenvalues' place
    sigma: float  # standard deviation of the Gaussian put on each node
    nodes: list[np.ndarray]  # of each run that counts, deflated eigenvalues first; of the whole spectrum, one
    weights: list[np.ndarray]  # the nodes' weights, adding up to 1
    num_products: int
    num_deflated: int  # j in the last run; P for a whole spectrum
    is_exact: bool  # every eigenvalue is there: the error is rounding alone


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

    ρ(t) = 1/(n_v−1) Σ_{l≥2} [ 1/P Σ_{i≤j} g_σ(t − θ_i) + (P−j)/P Σ_k τ²_lk g_σ(t − θ_lk) ]: the first run only
    looks for eigenvalues. A Ritz pair with a residual ≤ σ/50 is deflated: it stands for one eigenvalue, with
    the weight 1/P, and later runs l start at random in the complement of the j vectors that the runs before
    them found. There θ_lk are the eigenvalues of T and τ_lk the first components of its eigenvectors. Given
    what is deflated each run is free of bias but for its finite m; a further copy of a deflated eigenvalue is in
    the complement, and keeps its random weight until it is found too. If n_v · m products reach the whole
    space, P products give all eigenvalues, and the density exactly.

    σ is `broadening` times the width of the central 98 % of the mass, so an outlier does not smear the bulk. A
    bulk that is one point (a low-rank matrix) has no width: σ is then 1e-4 of the largest node. The value of a
    cell is the Gaussians' mass in it over its width, exactly, so the density integrates to 1 on any grid.

    The error has three parts, added as squares. (1) The random starts. A run's weights on D eigenvalues are
    Dirichlet(½, …, ½), so its variance is known, 2/(D+2) · (D/P)² · (μ[g²] − μ[g]²), μ the run's measure; it
    is put in from the runs' own estimate of μ. Where few eigenvalues lie that estimate is low whenever the value
    is; so the half-width of the score interval (Wilson's) is taken, √(V + a²), a the variance over the value.
    (2) The bias of m steps, judged by what the last fifth of them changed: on a large operator a σ finer than
    the nodes lie (width of the bulk / m) gives the same comb in each run, which only this part shows.
    (3) Where the deflated eigenvalues lie, by their residuals.

    Memory: 2m vectors of size P at most, m of the basis and m deflated.

    Args:
        operator: symmetric, (P, P), with `operator @ v`.
        generator: draws the start vectors, on the CPU.
        num_runs: n_v ≥ 2, of which the first only looks for eigenvalues.
        num_steps: m; a run ends sooner where the Krylov space ends, and is then exact.
        broadening: σ over the width of the bulk. Below about 2/m the nodes show as a comb, and the error says so.
        num_points: G.

    Raises:
        ValueError: if there are fewer than two runs.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Lin, Saad, Yang 2016, §3.2; Ghorbani, Krishnan, Xiao 2019, §2. Deflation: Ubaru, Chen, Saad 2017;
    for spectral densities Chen and Hallman 2023, Bhattacharjee et al. 2025. Score interval: Wilson 1927.

    Example:
        >>> A = torch.diag(torch.linspace(-1, 1, 500))
        >>> found = stochastic_lanczos_quadrature(A, generator=torch.Generator().manual_seed(0))
        >>> round(float((found.density * np.diff(found.edges)).sum()), 6), found.num_products
        (1.0, 160)
    """
    if num_runs < 2:
        raise ValueError(
            f"expected num_runs ≥ 2, got {num_runs} in stochastic_lanczos_quadrature; the first run only looks for "
            "eigenvalues to deflate"
        )
    size = int(operator.shape[0])
    if size <= num_runs * num_steps:
        return _exact(*whole_spectrum(operator), broadening, num_points)
    deflated, runs, num_products = _runs(operator, generator, num_runs, num_steps, broadening)
    return _estimated(deflated, runs, num_products, size, broadening, num_points)


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


@dataclass(frozen=True)
class _Run:
    """One run on the complement of the first j deflated vectors."""

    num_deflated: int  # j
    fine: Quadrature  # of all m steps
    coarse: Quadrature  # of the first steps alone

    def mean(self, values: np.ndarray, size: int) -> np.ndarray:
        """Return (D/P) Σ_k τ²_k v_k, (G,), for values (G, m) at the nodes."""
        return (1 - self.num_deflated / size) * (values @ self.fine[1])

    def variance(self, values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the variance (G,) of `mean` over random starts, and its part that grows with the mean."""
        dimension = size - self.num_deflated
        scale = 2 / (dimension + 2) * (dimension / size) ** 2
        squares, mean = values**2 @ self.fine[1], values @ self.fine[1]
        return scale * np.maximum(squares - mean**2, 0.0), scale * squares


@dataclass(frozen=True)
class _Deflated:
    """Ritz values (j,) that stand for one eigenvalue each, in the order found, and their residuals."""

    values: np.ndarray
    residuals: np.ndarray

    def added(self, run: _Run, size: int, coarse: bool = False) -> Quadrature:
        """Return the run's quadrature of the whole operator, its weights adding up to 1."""
        j = run.num_deflated
        nodes, weights = run.coarse if coarse else run.fine
        return np.r_[self.values[:j], nodes], np.r_[np.full(j, 1 / size), (1 - j / size) * weights]


def _runs(
    operator: Operator, generator: torch.Generator, num_runs: int, num_steps: int, broadening: float
) -> tuple[_Deflated, list[_Run], int]:
    """Return what was deflated, the runs that count, and the products of all runs."""
    rows = torch.empty(0, operator.shape[0], dtype=operator.dtype, device=operator.device)
    left, deflated = Complement(operator, rows), _Deflated(np.zeros(0), np.zeros(0))
    runs, num_products, settled = [], 0, 0.0
    for _ in range(num_runs):
        basis = KrylovBasis(left)
        start = torch.randn(left.shape[0], generator=generator, dtype=torch.float64)
        basis.start(left.remove(start.to(left.device, left.dtype)))
        run = _run(basis, num_steps, len(left.rows))
        runs.append(run)
        num_products += basis.num_products
        settled = settled or SETTLED * broadening_width(*run.fine, broadening)
        if len(runs) < num_runs:
            values, residuals, coordinates = basis.ritz()
            room = num_steps - len(left.rows)
            chosen = np.flatnonzero(residuals <= settled)
            chosen = chosen[np.argsort(-np.abs(values[chosen]), kind="stable")][:room]
            left = left.with_more(basis.vectors(coordinates[:, chosen]).T, values[chosen])
            deflated = _Deflated(np.r_[deflated.values, values[chosen]], np.r_[deflated.residuals, residuals[chosen]])
    return deflated, runs[1:], num_products


def _run(basis: KrylovBasis, num_steps: int, num_deflated: int) -> _Run:
    goes_on = True
    while basis.num_products < num_steps and (goes_on := basis.step()):
        pass
    fine = basis.quadrature(basis.num_products)
    # a run that has come to the end of its space is exact: there is nothing that more steps would change
    coarse = basis.quadrature(math.ceil(COARSE * basis.num_products)) if goes_on else fine
    return _Run(num_deflated, fine, coarse)


def _estimated(
    deflated: _Deflated, runs: list[_Run], num_products: int, size: int, broadening: float, num_points: int
) -> SpectralDensity:
    fine, coarse = ([deflated.added(run, size, i) for run in runs] for i in (False, True))
    nodes, weights = (list(part) for part in zip(*fine, strict=True))
    sigma = broadening_width(np.concatenate(nodes), np.concatenate(weights), broadening)
    edges = symlog_edges(min(n.min() for n in nodes), max(n.max() for n in nodes), sigma, num_points)
    density, before = (np.mean([broadened(*q, sigma, edges) for q in qs], 0) for qs in (fine, coarse))
    random = _random_error(runs, size, sigma, edges)
    place = _place_error(deflated.values, deflated.residuals, size, sigma, edges)
    error = np.sqrt(random**2 + (density - before) ** 2 + place**2)
    return SpectralDensity(_centres(edges), edges, density, error, sigma, nodes, weights, num_products,
                           runs[-1].num_deflated, False)  # fmt: skip


def _exact(values: np.ndarray, errors: np.ndarray, broadening: float, num_points: int) -> SpectralDensity:
    size = len(values)
    weights = np.full(size, 1 / size)
    sigma = broadening_width(values, weights, broadening)
    edges = symlog_edges(values[0], values[-1], sigma, num_points)
    density, error = broadened(values, weights, sigma, edges), _place_error(values, errors, size, sigma, edges)
    return SpectralDensity(_centres(edges), edges, density, error, sigma, [values], [weights], size, size, True)


def _random_error(runs: list[_Run], size: int, sigma: float, edges: np.ndarray) -> np.ndarray:
    """Return √(V + a²), (G,): V the variance of the mean over runs, a its growth with the value."""
    mean, variance, growth = (np.zeros(len(edges) - 1) for _ in range(3))
    for run in runs:
        values = _cell_means(run.fine[0], sigma, edges)  # (G, m)
        one, growing = run.variance(values, size)
        mean, variance, growth = mean + run.mean(values, size), variance + one, growth + growing
    num_runs = len(runs)
    per_value = np.divide(growth / num_runs, mean, out=np.zeros_like(mean), where=mean > 0)
    return np.sqrt(variance / num_runs**2 + per_value**2)


def _place_error(values: np.ndarray, errors: np.ndarray, size: int, sigma: float, edges: np.ndarray) -> np.ndarray:
    """Return by how much the density, (G,), changes if each eigenvalue moves by its error."""
    up, down = (_cell_means(values + side * errors, sigma, edges) for side in (1, -1))  # (G, j)
    return np.abs(up - down).sum(1) / (2 * size)


def _cell_means(nodes: np.ndarray, sigma: float, edges: np.ndarray) -> np.ndarray:
    """Return the mean of g_σ(t − θ_k) over each cell, (G, m)."""
    return np.diff(ndtr((edges[:, None] - nodes) / sigma), axis=0) / np.diff(edges)[:, None]


def _centres(edges: np.ndarray) -> np.ndarray:
    return (edges[1:] + edges[:-1]) / 2
