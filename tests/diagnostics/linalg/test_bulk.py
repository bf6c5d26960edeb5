import numpy as np
import pytest
import torch
from linalg_helpers import Diagonal, with_spectrum

from trainvitals.diagnostics.linalg.bulk import KrylovSpectrum, find_bulk, krylov_spectra, weighted_quantile

SIZE = 20_000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(count):
    bulk = torch.randn(count, generator=seeded(3), dtype=torch.float64)
    return bulk / bulk.abs().max()


BULKS = {
    "gaussian": gaussian,
    "uniform": lambda n: torch.linspace(-1, 1, n, dtype=torch.float64),
    "mostly_zero": lambda n: torch.cat([torch.zeros(n - 1000), torch.linspace(0, 1, 1000)]).double(),
    "decades": lambda n: torch.exp(-8 * torch.rand(n, generator=seeded(6), dtype=torch.float64)),
}
OUTLIERS = {
    "apart": torch.arange(10, 20),
    "geometric": 2 * 1.3 ** torch.arange(10),
    "near": torch.linspace(1.6, 3, 10),
    "repeated": torch.tensor([10, 10, 11, 11, 14, 14, 14, 18, 18, 18]),
}


def bulks_of(values, num_steps, seed=0):
    return [find_bulk(s, 1.5) for s in krylov_spectra(Diagonal(values), generator=seeded(seed), num_steps=num_steps)]


@pytest.mark.parametrize("num_steps", [40, 60, 100, 200])
def test_ten_outliers_of_twenty_thousand_are_ten_at_every_krylov_size(num_steps):
    values = torch.cat([gaussian(SIZE - 10), OUTLIERS["apart"].double()])
    before, bulk = bulks_of(values, num_steps)
    assert bulk.num_outliers == before.num_outliers == 10
    assert bulk.is_clear
    assert bulk.edge == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("outliers", OUTLIERS)
@pytest.mark.parametrize("bulk", BULKS)
def test_ten_outliers_beyond_other_bulks(bulk, outliers):
    values = torch.cat([BULKS[bulk](4990), OUTLIERS[outliers].double()])
    before, found = bulks_of(values, 100)
    assert before.num_outliers == found.num_outliers == 10
    assert found.is_clear


@pytest.mark.parametrize("bulk", BULKS)
def test_a_bulk_alone_has_none(bulk):
    assert [b.num_outliers for b in bulks_of(BULKS[bulk](5000), 100)] == [0, 0]


def test_float32_makes_no_ghosts():
    values = torch.cat([gaussian(4990), OUTLIERS["apart"].double()]).float()
    assert bulks_of(values, 300)[1].num_outliers == 10


def test_too_few_products_are_not_called_clear():
    values = torch.cat([BULKS["uniform"](4990), OUTLIERS["repeated"].double()])
    before, found = bulks_of(values, 30)
    assert found.num_outliers == 10 or not found.is_clear or before.num_outliers != found.num_outliers


def test_a_small_operator_is_seen_whole():
    values = torch.cat([torch.linspace(-1, 1, 60), torch.tensor([5.0, 5.0, 7.0])]).double()
    A = with_spectrum(values, 0)
    _, spectrum = krylov_spectra(A, generator=seeded(), num_steps=100)
    assert spectrum.is_whole
    assert spectrum.num_products == 63
    np.testing.assert_allclose(spectrum.values, torch.linalg.eigvalsh(A).flip(0).numpy(), atol=1e-10)
    assert spectrum.weights == pytest.approx(np.full(63, 1 / 63))
    assert find_bulk(spectrum, 1.5).num_outliers == 3


def test_low_rank_ends_the_chains_and_counts_its_rank():
    values = torch.cat([torch.zeros(500), torch.tensor([1.0, 2.0, 3.0])]).double()
    _, spectrum = krylov_spectra(Diagonal(values), generator=seeded(), num_steps=50)
    assert find_bulk(spectrum, 1.5).num_outliers == 3


def test_an_unsettled_value_is_no_outlier():
    values = np.r_[9.0, 8.0, np.linspace(1, -1, 48)]
    residuals = np.zeros(50)
    residuals[1] = 0.6
    found = find_bulk(KrylovSpectrum(values, residuals, np.full(50, 0.02), 1000, 50), 1.5)
    assert found.num_outliers == 0
    assert not found.is_clear


def test_quantile_counts_weight():
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([0.2, 0.5, 0.3])
    assert [weighted_quantile(values, weights, q) for q in (0.1, 0.5, 0.51, 0.8, 0.81, 1)] == [1, 1, 2, 2, 3, 3]
