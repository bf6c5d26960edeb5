import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from linalg_helpers import CountedMatrix, Diagonal, with_spectrum
from scipy.stats import norm

from trainvitals.diagnostics.linalg.density import broadened, stochastic_lanczos_quadrature, symlog_edges


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def outlier_spectrum(size=2000):
    bulk = torch.randn(size - 10, generator=seeded(1), dtype=torch.float64) * 0.1
    return torch.cat([bulk, torch.linspace(5, 300, 9, dtype=torch.float64), torch.tensor([-20.0])])


def mass(found):
    return float((found.density * np.diff(found.edges)).sum())


@pytest.mark.parametrize(
    "values",
    [outlier_spectrum(), torch.zeros(50), torch.ones(50), torch.tensor([3.0]), torch.linspace(5, 6, 100),
     torch.cat([torch.zeros(500), torch.tensor([1e4])])],
    ids=["outliers", "zero", "identity", "one by one", "far from zero", "low rank"],
)  # fmt: skip
def test_integrates_to_one(values):
    found = stochastic_lanczos_quadrature(Diagonal(values.double()), generator=seeded())
    assert mass(found) == pytest.approx(1, abs=1e-8)
    assert (found.density >= 0).all()
    assert (np.diff(found.edges) > 0).all()
    assert found.edges[0] < values.min() <= values.max() < found.edges[-1]
    assert np.trapezoid(found.density, found.grid) == pytest.approx(1, abs=0.02)  # what a chart's area shows


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_space_within_the_budget_is_taken_whole_and_exact(dtype):
    values = torch.linspace(-1, 2, 30, dtype=torch.float64) ** 3
    A = CountedMatrix(with_spectrum(values, 0).to(dtype))
    found = stochastic_lanczos_quadrature(A, generator=seeded(), num_runs=2, num_steps=15, broadening=0.05)
    exact = broadened(values.numpy(), np.full(30, 1 / 30), found.sigma, found.edges)
    assert found.is_exact
    assert found.num_products == A.num_products == 30
    # a cell is a difference of two masses of size ≤ 1, each with float64's rounding
    cancelled = 1e-15 / np.diff(found.edges)
    assert (np.abs(found.density - exact) <= 2 * found.error + cancelled).all()
    assert found.error.max() < 300 * torch.finfo(dtype).eps * exact.max()


def test_runs_are_free_of_bias():
    # few steps, a broad σ: the mean over seeds must close in on the truth as 1/√seeds
    values = torch.linspace(-1, 2, 60, dtype=torch.float64) ** 3
    A, misses, errors = with_spectrum(values, 0), [], []
    for seed in range(60):
        found = stochastic_lanczos_quadrature(A, generator=seeded(seed), num_runs=3, num_steps=18, broadening=0.2)
        exact = broadened(values.numpy(), np.full(60, 1 / 60), found.sigma, found.edges)
        misses.append((found.density - exact) / exact.max())
        errors.append(found.error / exact.max())
    assert not found.is_exact
    mean, spread = np.mean(misses, 0), np.std(misses, 0)
    assert np.abs(mean).max() < 5 * spread.max() / np.sqrt(60)
    inner = spread > 0.1 * spread.max()
    ratio = np.median(np.mean(errors, 0)[inner] / spread[inner])
    assert ratio == pytest.approx(1.1, abs=0.3)  # a little above 1, for the steps' part and the score's


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("num_runs", "num_steps"), [(4, 40), (3, 15), (4, 20)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nine_of_ten_cells_lie_within_twice_the_error_on_every_model(case, num_runs, num_steps, dtype):
    built = case.build()
    H = dense_hessian(built.model, built.loss, built.batch)
    spectrum, shares = np.linalg.eigvalsh(H.numpy()), []
    for seed in range(40):
        found = stochastic_lanczos_quadrature(
            H.to(dtype), generator=seeded(seed), num_runs=num_runs, num_steps=num_steps
        )
        exact = broadened(spectrum, np.full(len(spectrum), 1 / len(spectrum)), found.sigma, found.edges)
        shares.append((np.abs(found.density - exact) <= 2 * found.error + 1e-9 * exact.max()).mean())
        if found.is_exact:
            break
    assert np.mean(shares) >= 0.9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_band_holds_the_truth_on_a_large_operator(dtype):
    values = outlier_spectrum()
    inside = []
    for seed in range(10):
        found = stochastic_lanczos_quadrature(
            Diagonal(values.to(dtype)), generator=seeded(seed), num_runs=10, num_steps=80, broadening=0.1
        )
        exact = broadened(values.numpy(), np.full(len(values), 1 / len(values)), found.sigma, found.edges)
        matters = exact > 1e-3 * exact.max()
        within = np.abs(found.density - exact) <= 2.5 * found.error + 0.01 * exact.max()
        inside.append(within[matters].mean())
    assert np.mean(inside) >= 0.9


def test_outliers_hold_their_share_of_the_mass_and_sigma_is_of_the_bulk():
    values = outlier_spectrum()
    found = stochastic_lanczos_quadrature(Diagonal(values), generator=seeded(), num_runs=40)
    bulk_width = float(values.quantile(0.99) - values.quantile(0.01))
    assert found.sigma == pytest.approx(0.07 * bulk_width, rel=0.5)  # quantiles fall on nodes, which are few
    beyond = found.grid > 2
    count = (found.density * np.diff(found.edges))[beyond].sum() * len(values)
    assert count == pytest.approx(9, abs=1e-6)  # each has been deflated, so it weighs 1/P
    assert found.num_deflated >= 10
    peaks = [t for t in values.tolist() if t > 2]
    for peak in peaks:  # nothing beyond the bulk but at an outlier
        near = np.abs(found.grid - peak) <= 8 * found.sigma + np.diff(found.edges)
        beyond = beyond & ~near
    assert (found.density * np.diff(found.edges))[beyond].sum() * len(values) < 0.01


def smooth_spectrum(size=10_000):
    return torch.linspace(-1, 1, size, dtype=torch.float64) ** 3


@pytest.mark.parametrize(("broadening", "least"), [(0.07, 0.95), (0.02, 0.75)])
def test_band_holds_the_truth_even_where_the_steps_are_too_few_for_the_broadening(broadening, least):
    # runs on a large operator agree on the same comb of nodes: their spread alone would hold a third of it
    values = smooth_spectrum()
    inside, over_runs = [], []
    for seed in range(5):
        found = stochastic_lanczos_quadrature(Diagonal(values), generator=seeded(seed), broadening=broadening)
        exact = broadened(values.numpy(), np.full(len(values), 1 / len(values)), found.sigma, found.edges)
        matters = exact > 0.01 * exact.max()
        wrong = np.abs(found.density - exact) - 0.01 * exact.max()
        each = np.stack([broadened(n, w, found.sigma, found.edges)
                         for n, w in zip(found.nodes, found.weights, strict=True)])  # fmt: skip
        inside.append((wrong <= 2 * found.error)[matters].mean())
        over_runs.append((wrong <= 2 * each.std(0, ddof=1) / np.sqrt(len(each)))[matters].mean())
    assert np.mean(inside) >= least
    assert np.mean(over_runs) < np.mean(inside) or np.mean(over_runs) > 0.95


def test_the_default_curve_of_a_bulk_with_outliers_is_the_truth_broadened():
    values = torch.cat([torch.randn(10_000, generator=seeded(2)), torch.tensor([20.0, 40, 80])]).double()
    for seed in range(5):
        found = stochastic_lanczos_quadrature(Diagonal(values), generator=seeded(seed))
        exact = broadened(values.numpy(), np.full(len(values), 1 / len(values)), found.sigma, found.edges)
        assert (np.abs(found.density - exact) * np.diff(found.edges)).sum() / 2 < 0.03  # total variation
        assert found.num_products == 160


def test_repeated_outliers_get_their_weight_once_every_copy_is_found():
    values = torch.cat([torch.linspace(-1, 1, 5000), torch.tensor([9.0, 9, 5, 5, 5, -4, -4])]).double()
    found = stochastic_lanczos_quadrature(Diagonal(values), generator=seeded(), num_runs=5)
    mass = found.density * np.diff(found.edges) * len(values)
    assert mass[np.abs(found.grid - 9) < 1].sum() == pytest.approx(2, rel=0.5)  # found one by one, run by run
    assert mass[np.abs(found.grid + 4) < 1].sum() == pytest.approx(2, rel=0.5)
    exact = broadened(values.numpy(), np.full(len(values), 1 / len(values)), found.sigma, found.edges)
    assert (np.abs(found.density - exact) <= 2 * found.error + 1e-3 * exact.max()).mean() > 0.9
    last = found.nodes[-1]
    assert [(np.abs(last - v) < 1e-6).sum() for v in (9, 5, -4)] == [2, 3, 2]


def test_memory_holds_no_more_deflated_vectors_than_steps():
    A = with_spectrum(torch.linspace(1, 2, 300, dtype=torch.float64) ** 8, 0)
    found = stochastic_lanczos_quadrature(A, generator=seeded(), num_runs=9, num_steps=30, broadening=0.5)
    assert not found.is_exact
    assert found.num_deflated == 30


def test_no_ghosts_among_the_nodes():
    found = stochastic_lanczos_quadrature(Diagonal(outlier_spectrum(20_000)), generator=seeded(), num_steps=60)
    for nodes in found.nodes:
        assert (nodes > 2).sum() == 9
        assert (nodes < -2).sum() == 1


def test_cells_hold_the_gaussians_mass():
    edges = np.array([-3.0, -1.0, 0.5, 4.0])
    got = broadened(np.array([0.2, 1.0]), np.array([0.25, 0.75]), 0.7, edges)
    cdf = 0.25 * norm.cdf(edges, 0.2, 0.7) + 0.75 * norm.cdf(edges, 1.0, 0.7)
    np.testing.assert_allclose(got, np.diff(cdf) / np.diff(edges), rtol=1e-12)


def test_grid_is_fine_around_zero_and_logarithmic_outside():
    edges = symlog_edges(-10, 1000, 0.01, 400)
    width = np.diff(edges)
    assert width[np.searchsorted(edges, 0) - 1] < 0.01
    outside = edges[:-1] > 1
    ratio = edges[1:][outside] / edges[:-1][outside]
    np.testing.assert_allclose(ratio, ratio[-1], rtol=1e-3)


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="num_runs ≥ 2"):
        stochastic_lanczos_quadrature(torch.eye(3), generator=seeded(), num_runs=1)
