"""The power law against scipy's fit and Kolmogorov-Smirnov test at every start, and against known exponents."""

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot
from scipy import stats

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.spectrum_tail import SpectrumTail, eigenvalues, fit_power_law


def pareto(num, alpha, seed=0):
    return np.random.default_rng(seed).random(num) ** (-1 / (alpha - 1))


def with_spectrum(sigma, seed=0):
    """A square matrix with these singular values between random rotations."""
    generator = torch.Generator().manual_seed(seed)
    U, V = (torch.linalg.qr(torch.randn(len(sigma), len(sigma), generator=generator).double())[0] for _ in range(2))
    return U @ torch.diag(torch.as_tensor(sigma)) @ V.T


def by_scipy(x):
    """Try every start: scipy's maximum likelihood and its Kolmogorov-Smirnov distance."""
    found = []
    for x_min in sorted(set(x))[:-1]:
        tail = x[x >= x_min]
        shape, _, _ = stats.pareto.fit(tail, floc=0, fscale=x_min)
        found.append((stats.kstest(tail, stats.pareto(shape, scale=x_min).cdf).statistic, shape + 1, x_min, len(tail)))
    return min(found)


@pytest.mark.parametrize("kind", ["pareto", "lognormal", "uniform", "ties"])
def test_the_fit_equals_scipy_at_every_start(kind):
    r = np.random.default_rng(3)
    x = {"pareto": pareto(60, 2.5), "lognormal": r.lognormal(size=60), "uniform": r.random(60) + 0.1,
         "ties": np.ceil(10 * pareto(60, 2.5)) / 10}[kind]  # fmt: skip
    distance, alpha, x_min, num_tail = by_scipy(x)
    fit = fit_power_law(x)
    assert fit.distance == pytest.approx(distance, rel=1e-9)
    assert fit.exponent == pytest.approx(alpha, rel=1e-6)
    assert fit.x_min == x_min
    assert fit.num_tail == num_tail


def test_scale_and_order_do_not_matter():
    x = pareto(80, 3)
    one, other = fit_power_law(x), fit_power_law(1e-7 * x[::-1])
    assert other.exponent == pytest.approx(one.exponent, rel=1e-9)
    assert other.distance == pytest.approx(one.distance, rel=1e-9)
    assert other.x_min == pytest.approx(1e-7 * one.x_min, rel=1e-12)


# (α − 1)/√t takes x_min as given; choosing it widens the spread to 1.1–1.25 errors, measured over 200 seeds.
@pytest.mark.parametrize(("num", "alpha"), [(60, 2.0), (200, 3.5)])
def test_the_exponent_lies_within_its_error_as_often_as_stated(num, alpha):
    fits = [fit_power_law(pareto(num, alpha, seed)) for seed in range(100)]
    inside = sum(abs(fit.exponent - alpha) <= 2 * fit.error for fit in fits)
    assert 82 <= inside <= 99  # 89 % and 92 % expected: three standard deviations


def test_the_start_of_the_tail_is_found():
    body, tail = np.random.default_rng(0).random(500) * 10, 10 * pareto(500, 2.5)
    fit = fit_power_law(np.concatenate([body, tail]))
    assert 8 < fit.x_min < 13
    assert abs(fit.exponent - 2.5) < 3 * fit.error


def test_the_distance_tells_a_power_law_from_an_even_spread():
    # A true law of t values lies about 0.6/√t = 0.013 from its fit; an even spread ends like no power law.
    assert fit_power_law(pareto(2000, 2.5)).distance < 0.025
    assert fit_power_law(1 + np.arange(2000) / 4000).distance > 0.1


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [0.0, 1.0, 2.0], [1.0, 2.0, np.inf]])
def test_values_without_a_tail_are_refused(values):
    with pytest.raises(ValueError, match="expected at least two different positive finite values"):
        fit_power_law(np.array(values))


def test_a_layer_is_fitted_on_its_eigenvalues():
    sigma = np.sqrt(pareto(100, 3.0))
    readings = SpectrumTail().measure(FakeSnapshot(parameters={"b": torch.ones(4), "w": with_spectrum(sigma)}))
    expected = fit_power_law(sigma**2 / 100)
    assert readings["value"].keys == readings["distance"].keys == ("w",)
    assert readings["value"].value.tolist() == pytest.approx([expected.exponent], rel=1e-6)
    assert readings["value"].error.tolist() == pytest.approx([expected.error], rel=1e-6)
    assert readings["distance"].value.tolist() == pytest.approx([expected.distance], rel=1e-6)
    assert readings["value"].details["x_min"].tolist() == pytest.approx([expected.x_min], rel=1e-6)
    assert readings["value"].details["num_tail"].tolist() == [expected.num_tail]


def test_eigenvalues_are_divided_by_the_larger_side_and_rounding_is_no_eigenvalue():
    W = torch.randn(60, 90, generator=torch.Generator().manual_seed(0)).double()
    expected = np.linalg.eigvalsh((W @ W.T).numpy() / 90)[::-1]
    sigma = torch.linalg.svdvals(W)
    assert eigenvalues(sigma, (60, 90)).tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    rounding = torch.cat([sigma[:55], torch.full((5,), 1e-7).double() * sigma[0]])
    assert len(eigenvalues(rounding, (60, 90))) == 55


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"b": torch.ones(9)}, "the model has no weight matrix"),
        ({"w": torch.randn(49, 60, generator=torch.Generator().manual_seed(0))}, "w: 49 eigenvalues, a tail needs 50"),
        ({"w": torch.zeros(60, 60)}, "w: 0 eigenvalues"),
        ({"w": torch.eye(60)}, "w: all its eigenvalues are equal"),
        ({"w": torch.full((60, 60), torch.nan)}, "w: it holds NaN or Inf"),
    ],
)
def test_missing_with_the_reason(weights, words):
    with pytest.raises(Missing, match=words):
        SpectrumTail().measure(FakeSnapshot(parameters=weights))


def test_a_small_layer_is_left_out_beside_a_large_one():
    weights = {"small": torch.ones(3, 3), "large": with_spectrum(np.sqrt(pareto(60, 3.0)))}
    reading = SpectrumTail().measure(FakeSnapshot(parameters=weights))["value"]
    assert reading.keys == ("large",)
    assert reading.details["left_out"] == {"small": "1 eigenvalues, a tail needs 50"}


def scaled_rows():
    rows = pareto(120, 2.0, 5)[:, None]
    return np.linalg.svd((np.random.default_rng(4).random((120, 120)) - 0.5) * rows, compute_uv=False) ** 2 / 120


def random_matrix():
    return np.linalg.svd(np.random.default_rng(3).random((100, 150)) - 0.5, compute_uv=False) ** 2 / 150


# α, its error and x_min as weightwatcher 0.7.7 gave them (`WW_powerlaw.pl_fit`, defaults) on the same values. It is no
# dependency: it pins packages of its own. It takes D from one side of the steps of S alone, so its tail may begin
# elsewhere; where it begins at the same value, the exponents are the same.
@pytest.mark.parametrize(
    ("spectrum", "alpha", "error", "x_min"),
    [
        (lambda: pareto(200, 2.5, 1), 2.7609625722587867, 0.16790119337104412, 1.5296348688522088),
        (lambda: pareto(300, 4.0, 2), 3.8982764755364667, 0.16733207033369388, 1.0036996647200649),
        (random_matrix, 6.326961385153711, 1.3317403462884279, 0.16728942429944013),
        (scaled_rows, 1.3940499804428879, 0.047438043054047724, 0.1513011265999654),
    ],
    ids=["power law", "steep power law", "random matrix", "rows of power-law lengths"],
)
def test_the_exponent_is_that_of_weightwatcher_within_its_own_error(spectrum, alpha, error, x_min):
    fit = fit_power_law(spectrum())
    assert abs(fit.exponent - alpha) <= error
    if fit.x_min == pytest.approx(x_min, rel=1e-9):
        assert fit.exponent == pytest.approx(alpha, rel=1e-9)
        assert fit.error == pytest.approx(error, rel=1e-9)
