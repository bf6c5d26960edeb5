import pytest
import torch
from cases import CASES, dense_hessian
from linalg_helpers import CountedMatrix, with_spectrum
from trace_estimators import SPECTRA, seeded, share_inside

from trainvitals.diagnostics.linalg.hutchpp import hutchpp


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("num_products", [12, 30, 60])
def test_nine_of_ten_lie_within_twice_the_error(spectrum, num_products):
    assert share_inside(hutchpp, with_spectrum(spectrum, 0), num_products) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("num_products", [12, 30, 60])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nine_of_ten_lie_within_twice_the_error_on_every_model(case, num_products):
    built = case.build()
    assert share_inside(hutchpp, dense_hessian(built.model, built.loss, built.batch), num_products) >= 0.9


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
