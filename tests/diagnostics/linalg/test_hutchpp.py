import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from linalg_helpers import CountedMatrix, with_spectrum

from trainvitals.diagnostics.linalg.hutchpp import hutchpp

SPECTRA = {
    "flat": torch.linspace(0.5, 1.5, 150, dtype=torch.float64),
    "decaying": 1 / torch.arange(1, 151, dtype=torch.float64),
    "outliers": torch.cat([torch.linspace(-0.1, 0.2, 140), torch.linspace(5, 50, 10)]).double(),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def share_inside(A, num_products, seeds=200):
    exact = float(A.trace())
    found = [hutchpp(A, generator=seeded(s), num_products=num_products) for s in range(seeds)]
    return np.mean([abs(f.value - exact) <= 2 * f.standard_error + 1e-9 * abs(exact) for f in found])


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("num_products", [12, 30, 60])
def test_nine_of_ten_lie_within_twice_the_error(spectrum, num_products):
    assert share_inside(with_spectrum(spectrum, 0), num_products) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("num_products", [12, 30, 60])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nine_of_ten_lie_within_twice_the_error_on_every_model(case, num_products):
    built = case.build()
    assert share_inside(dense_hessian(built.model, built.loss, built.batch), num_products) >= 0.9


def test_low_rank_is_exact_and_products_are_counted():
    values = torch.cat([torch.zeros(90), torch.tensor([8.0, -3, 1])]).double()
    A = CountedMatrix(with_spectrum(values, 0))
    found = hutchpp(A, generator=seeded(), num_products=24)
    assert found.value == pytest.approx(6, abs=1e-8)
    assert found.num_probes == A.num_products == 24


def test_a_small_space_is_taken_whole():
    found = hutchpp(with_spectrum(torch.arange(5.0).double(), 0), generator=seeded(), num_products=15)
    assert found.value == pytest.approx(10)
    assert (found.standard_error, found.num_probes) == (0.0, 5)


def test_float32_agrees_with_float64_on_a_steep_spectrum():
    A = with_spectrum(10.0 ** -torch.linspace(-3, 6, 100, dtype=torch.float64), 0)
    found = [hutchpp(A.to(d), generator=seeded(), num_products=40).value for d in (torch.float32, torch.float64)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="num_products ≥ 6"):
        hutchpp(torch.eye(9), generator=seeded(), num_products=5)
