import numpy as np
import pytest
import torch
from linalg_helpers import CountedMatrix, with_spectrum

from trainvitals.diagnostics.linalg.krylov import KrylovBasis
from trainvitals.diagnostics.linalg.krylov_trace import krylov_trace
from trainvitals.diagnostics.linalg.trace import Deflation, hutchinson


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def krylov(A, num_vectors, seed=0):
    basis = KrylovBasis(A)
    basis.start_random(seeded(1000 + seed))
    while basis.num_products < num_vectors and basis.step():
        pass
    return Deflation(*basis.first(num_vectors))


SPECTRA = {
    "flat": torch.linspace(0.5, 1.5, 200, dtype=torch.float64),
    "decaying": 1 / torch.arange(1, 201, dtype=torch.float64),
    "steep": 1 / torch.arange(1, 201, dtype=torch.float64) ** 2,
    "outliers": torch.cat([torch.linspace(0, 0.1, 170), torch.linspace(1, 20, 30)]).double(),
    "both signs": torch.linspace(-1, 3, 150, dtype=torch.float64),
    "low rank": torch.cat([torch.zeros(180), torch.tensor([8.0, 3, 1])]).double(),
}


@pytest.mark.slow
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("tol", [0.05, 0.01])
def test_stopping_on_the_error_leaves_nine_of_ten_within_twice_of_it(spectrum, tol):
    A, inside = with_spectrum(spectrum, 0), []
    for seed in range(200):
        found = krylov_trace(A, krylov(A, 8, seed), generator=seeded(seed), tol=tol, max_products=150).estimate
        inside.append(abs(found.value - float(spectrum.sum())) <= 2 * found.standard_error + 1e-9)
    assert np.mean(inside) >= 0.9


def test_grown_samples_are_those_of_fresh_products():
    A = with_spectrum(SPECTRA["outliers"], 0)
    grown = krylov_trace(A, krylov(A, 8), generator=seeded(), tol=1e-3, min_probes=12, max_products=33)
    assert grown.num_grown == 8
    again = hutchinson(A, generator=seeded(), deflation=krylov(A, 16), max_probes=len(grown.estimate.samples))
    np.testing.assert_allclose(grown.estimate.samples, again.samples, rtol=1e-9)


def test_products_are_counted_and_the_budget_is_kept():
    for cap in (12, 20, 33, 100):
        A = CountedMatrix(with_spectrum(SPECTRA["outliers"], 0))
        space = krylov(A, 8)
        A.num_products = 0
        found = krylov_trace(A, space, generator=seeded(), tol=1e-4, max_products=cap)
        assert A.num_products == found.num_products <= cap
        assert found.num_products == found.estimate.num_probes + found.num_grown + (found.num_grown > 0)


def test_one_percent_takes_fewer_products_where_deflation_helps_and_no_more_where_not():
    def products(name):
        A = with_spectrum(SPECTRA[name], 0)
        found = krylov_trace(A, krylov(A, 8), generator=seeded(), tol=0.01, max_products=2000)
        plain = hutchinson(A, generator=seeded(), tol=0.01, deflation=krylov(A, 8), max_probes=2000)
        assert found.estimate.converged
        return found.num_products, plain.num_probes

    grown, plain = products("outliers")
    assert grown < plain / 2
    grown, plain = products("flat")
    assert grown <= plain + 20


def test_the_whole_space_is_taken_where_it_is_cheaper_and_is_exact():
    A = with_spectrum(SPECTRA["both signs"], 0)
    found = krylov_trace(A, krylov(A, 8), generator=seeded(), tol=1e-5, max_products=400)
    assert found.estimate.converged
    assert found.num_grown == 142
    assert found.estimate.value == pytest.approx(150, rel=1e-9)


def test_a_chain_that_has_ended_is_not_taken_up():
    A = with_spectrum(SPECTRA["low rank"], 0)
    found = krylov_trace(A, krylov(A, 8), generator=seeded(), tol=0.05)
    assert found.num_grown == 0
    assert found.estimate.value == pytest.approx(12, rel=1e-6)
    none = torch.zeros(20, 20)
    assert krylov_trace(none, krylov(none, 4), generator=seeded(), tol=0.1).estimate.value == 0


def test_float32_agrees_with_float64():
    found = []
    for dtype in (torch.float64, torch.float32):
        A = with_spectrum(SPECTRA["outliers"], 0).to(dtype)
        found.append(krylov_trace(A, krylov(A, 8), generator=seeded(), tol=0.01, max_products=60))
    assert found[0].num_products == found[1].num_products
    assert found[1].estimate.value == pytest.approx(found[0].estimate.value, rel=1e-4)
