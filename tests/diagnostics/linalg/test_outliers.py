import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from linalg_helpers import CountedMatrix, Diagonal, with_spectrum

from trainvitals.diagnostics.linalg.bulk import KrylovSpectrum, find_bulk
from trainvitals.diagnostics.linalg.outliers import count_outliers

SIZE = 20_000
SIZES = [15, 20, 30, 40, 60, 80, 120]


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
OUTLIERS = {  # beyond a bulk that ends at 1, and how many products find and verify them
    "apart": (torch.arange(10, 20), 60),
    "geometric": (2 * 1.3 ** torch.arange(10), 80),
    "near": (torch.linspace(1.6, 3, 10), 120),
    "far": (torch.logspace(1, 3, 10), 60),
    "repeated": (torch.tensor([10, 10, 11, 11, 14, 14, 14, 18, 18, 18]), 60),
    "five_times": (torch.tensor([10.0] * 5 + [20.0] * 5), 60),
    "both_signs": (torch.cat([torch.arange(10, 20), -torch.arange(5, 15)]), 80),
    "none": (torch.zeros(0), 60),
}


def counted(values, num_steps, seed=0, **options):
    return count_outliers(Diagonal(values), 1.5, generator=seeded(seed), num_steps=num_steps, **options)


def never_wrong(bulk, outliers, size, seeds):
    """Assert that at every number of products the count is right or unknown, and known where there are enough."""
    beyond, enough = OUTLIERS[outliers]
    values = torch.cat([BULKS[bulk](size - len(beyond)), beyond.double()])
    for num_steps in SIZES:
        for seed in range(seeds):
            found = counted(values, num_steps, seed)
            assert found.doubt is not None or found.bulk.num_outliers == int((beyond > 0).sum()), (num_steps, seed)
            assert found.doubt is None or num_steps < enough, (num_steps, seed, found.doubt)
            assert found.spectrum.num_products <= num_steps


@pytest.mark.parametrize("num_steps", SIZES)
def test_ten_outliers_of_twenty_thousand_are_ten_or_unknown_at_every_krylov_size(num_steps):
    values = torch.cat([gaussian(SIZE - 10), OUTLIERS["apart"][0].double()])
    found = counted(values, num_steps)
    assert (found.doubt is None) == (num_steps >= 40)
    if found.doubt is None:
        assert found.bulk.num_outliers == 10
        np.testing.assert_allclose(found.spectrum.values[:10], np.arange(19, 9, -1), rtol=1e-3)
        assert found.spectrum.num_products <= 40  # it ends when it knows


@pytest.mark.parametrize("outliers", OUTLIERS)
@pytest.mark.parametrize("bulk", BULKS)
def test_the_count_is_right_or_unknown_beyond_every_bulk(bulk, outliers):
    never_wrong(bulk, outliers, 3000, seeds=1)


@pytest.mark.slow
@pytest.mark.parametrize("outliers", OUTLIERS)
@pytest.mark.parametrize("bulk", BULKS)
def test_the_count_is_right_or_unknown_at_full_size_over_twenty_seeds(bulk, outliers):
    never_wrong(bulk, outliers, SIZE, seeds=20)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_on_every_model_the_count_is_the_dense_one_or_unknown(case):
    built = case.build()
    H = dense_hessian(built.model, built.loss, built.batch)
    values = np.linalg.eigvalsh(H.numpy())[::-1]
    whole = KrylovSpectrum(values, np.zeros(len(values)), np.full(len(values), 1 / len(values)), len(values), 0)
    exact = find_bulk(whole, 1.5).num_outliers
    known = 0
    for num_steps in (15, 40, 100):
        for seed in range(2):
            found = count_outliers(H, 1.5, generator=seeded(seed), num_steps=num_steps)
            assert found.doubt is not None or found.bulk.num_outliers == exact
            known += found.doubt is None
    assert known >= 1


def test_float32_makes_no_ghosts():
    values = torch.cat([gaussian(4990), OUTLIERS["apart"][0].double()]).float()
    assert counted(values, 300).bulk.num_outliers == 10
    spent = counted(values, 300, spend_all=True)
    assert spent.spectrum.num_products == 300
    assert (spent.spectrum.values > 5).sum() == 10


def test_a_small_operator_is_seen_whole():
    values = torch.cat([torch.linspace(-1, 1, 60), torch.tensor([5.0, 5.0, 7.0])]).double()
    A = CountedMatrix(with_spectrum(values, 0))
    found = count_outliers(A, 1.5, generator=seeded(), num_steps=100)
    assert found.spectrum.is_whole
    assert found.spectrum.num_products == A.num_products == 63
    np.testing.assert_allclose(found.spectrum.values, values.sort().values.flip(0).numpy(), atol=1e-10)
    assert found.spectrum.weights == pytest.approx(np.full(63, 1 / 63))
    assert (found.bulk.num_outliers, found.doubt) == (3, None)


def test_low_rank_ends_the_runs_and_counts_its_rank():
    found = counted(torch.cat([torch.zeros(500), torch.tensor([1.0, 2.0, 3.0])]).double(), 50)
    assert (found.bulk.num_outliers, found.doubt) == (3, None)
    assert counted(torch.zeros(500).double(), 50).bulk.num_outliers == 0


def test_the_doubt_is_said_in_words():
    values = torch.cat([BULKS["uniform"](4990), OUTLIERS["repeated"][0].double()])
    doubts = {counted(values, m).doubt for m in range(10, 30)}
    assert any("have not settled" in d for d in doubts if d)
    assert any("copies" in d or "may not have been seen" in d for d in doubts if d)


def test_weights_are_shares_of_the_eigenvalues():
    values = torch.cat([gaussian(4990), OUTLIERS["repeated"][0].double()])
    spectrum = counted(values, 100, spend_all=True).spectrum
    assert spectrum.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(spectrum.weights[:10], 1 / 5000)
