import numpy as np
import pytest
import torch
from linalg_helpers import CountedMatrix, Diagonal, with_spectrum

from trainvitals.diagnostics.linalg.finite import NonFiniteProduct
from trainvitals.diagnostics.linalg.krylov import KrylovBasis
from trainvitals.diagnostics.linalg.trace import Deflation, hutchinson


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def krylov(A, num_vectors, seed=0):
    if not num_vectors:
        return None
    basis = KrylovBasis(A)
    basis.start_random(seeded(1000 + seed))
    while basis.num_products < num_vectors and basis.step():
        pass
    return Deflation(*basis.first(num_vectors))


SPECTRA = {
    "outliers": torch.cat([torch.linspace(0, 0.1, 190), torch.linspace(1, 20, 10)]).double(),
    "both signs": torch.linspace(-1, 3, 150, dtype=torch.float64),
    "low rank": torch.cat([torch.zeros(180), torch.tensor([8.0, 3, 1])]).double(),
}


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("tol", [None, 0.05, 0.3])
@pytest.mark.parametrize("num_deflated", [0, 8])
def test_truth_lies_within_twice_the_error_in_nine_of_ten_seeds(spectrum, tol, num_deflated):
    A = with_spectrum(spectrum, 0)
    found = [hutchinson(A, generator=seeded(s), tol=tol, deflation=krylov(A, num_deflated, s)) for s in range(40)]
    inside = [abs(f.value - float(spectrum.sum())) <= 2 * f.standard_error + 1e-12 for f in found]
    assert sum(inside) >= 36


def test_standard_error_has_the_size_of_the_theory():
    A = with_spectrum(SPECTRA["outliers"], 0)
    found = hutchinson(A, generator=seeded(), max_probes=2000)
    variance = 2 * (A.square().sum() - A.diagonal().square().sum())  # Avron and Toledo 2011
    assert found.standard_error == pytest.approx(float(variance / 2000) ** 0.5, rel=0.1)
    assert found.value == pytest.approx(float(A.trace()), abs=4 * found.standard_error)
    assert found.value == pytest.approx(found.samples.mean())


def test_deflation_is_free_of_bias_and_takes_the_outliers_out_of_the_variance():
    A = with_spectrum(SPECTRA["outliers"], 0)
    plain = hutchinson(A, generator=seeded(), max_probes=1000)
    deflated = hutchinson(A, generator=seeded(), max_probes=1000, deflation=krylov(A, 12))
    assert deflated.value == pytest.approx(float(A.trace()), abs=4 * deflated.standard_error)
    assert deflated.standard_error < plain.standard_error / 20
    wrong = krylov(A, 12)  # the known part of the trace does enter
    off = hutchinson(A, generator=seeded(), max_probes=50, deflation=Deflation(wrong.rows, wrong.trace + 7))
    assert off.value == pytest.approx(float(A.trace()) + 7, abs=4 * deflated.standard_error + 0.1)


def test_where_the_deflated_vectors_span_the_space_no_probe_is_needed():
    A = CountedMatrix(with_spectrum(torch.linspace(-1, 2, 9, dtype=torch.float64), 0))
    deflation = krylov(A, 9)
    found = hutchinson(A, generator=seeded(), tol=0.05, deflation=deflation)
    assert found.value == pytest.approx(4.5)
    assert (found.standard_error, found.num_probes, A.num_products) == (0.0, 0, 9)
    assert found.converged


def test_a_diagonal_is_exact_and_stops_at_the_fewest_probes():
    A = CountedMatrix(Diagonal(torch.arange(10, dtype=torch.float64)))
    found = hutchinson(A, generator=seeded(), tol=1e-6, min_probes=5)
    assert found.value == 45
    assert found.standard_error == 0
    assert found.num_probes == A.num_products == 5
    assert found.converged


def test_stops_on_the_error_and_says_when_it_was_not_reached():
    A = with_spectrum(SPECTRA["both signs"], 0)
    loose = hutchinson(A, generator=seeded(), tol=0.2, max_probes=500)
    tight = hutchinson(A, generator=seeded(), tol=0.02, max_probes=500)
    assert 12 <= loose.num_probes < tight.num_probes <= 500
    assert loose.standard_error <= 0.2 * abs(loose.value)
    spent = hutchinson(A, generator=seeded(), tol=1e-4, max_probes=20)
    assert spent.num_probes == 20
    assert spent.converged is False
    assert hutchinson(A, generator=seeded(), max_probes=20).converged is None


def test_the_zero_operator_has_trace_zero():
    found = hutchinson(torch.zeros(5, 5), generator=seeded(), tol=0.1)
    assert (found.value, found.standard_error, found.converged) == (0.0, 0.0, True)


def test_float32_agrees_with_float64():
    A = with_spectrum(SPECTRA["outliers"], 0)
    found = [hutchinson(A.to(d), generator=seeded()).value for d in (torch.float32, torch.float64)]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="at least two probes"):
        hutchinson(torch.eye(2), generator=seeded(), min_probes=1)
    with pytest.raises(NonFiniteProduct):
        hutchinson(torch.full((2, 2), float("inf")), generator=seeded())
