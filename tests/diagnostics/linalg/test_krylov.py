import numpy as np
import pytest
import torch
from linalg_helpers import Diagonal, with_spectrum

from trainvitals.diagnostics.linalg.krylov import KrylovBasis


def test_equals_the_three_term_recursion_of_lanczos():
    A = with_spectrum(torch.linspace(-1, 2, 30, dtype=torch.float64), 0)
    start = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = KrylovBasis(A)
    basis.start(start)
    for _ in range(6):
        assert basis.step()
    alpha, beta, last, q = [], [], torch.zeros(30).double(), start / start.norm()
    for _ in range(6):  # the recursion as written in the textbook
        w = A @ q - (beta[-1] * last if beta else 0)
        alpha.append(float(w @ q))
        w = w - alpha[-1] * q
        beta.append(float(w.norm()))
        last, q = q, w / beta[-1]
    T = np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)
    expected, s = np.linalg.eigh(T)
    values, residuals, coordinates = basis.ritz()
    np.testing.assert_allclose(values, expected, atol=1e-12)
    np.testing.assert_allclose(residuals, beta[-1] * np.abs(s[-1]), atol=1e-12)  # β_m |s_mi|
    np.testing.assert_allclose(coordinates[0] ** 2, s[0] ** 2, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_basis_stays_orthogonal_after_convergence(dtype):
    values = torch.cat([torch.linspace(0, 1, 500), torch.tensor([1e3, 1e4])]).to(dtype)
    basis = KrylovBasis(Diagonal(values))
    basis.start_random(torch.Generator().manual_seed(0))
    for _ in range(120):
        basis.step()
    Q = basis.vectors(np.eye(120)).double()
    assert (Q.T @ Q - torch.eye(120)).abs().max() < 50 * torch.finfo(dtype).eps


def test_a_second_chain_keeps_residuals_true():
    A = with_spectrum(torch.linspace(-1, 2, 50, dtype=torch.float64), 0)
    basis, generator = KrylovBasis(A), torch.Generator().manual_seed(0)
    for num_steps in (7, 5):
        assert basis.start_random(generator)
        for _ in range(num_steps):
            basis.step()
    values, residuals, coordinates = basis.ritz()
    Y = basis.vectors(coordinates)
    true = (A @ Y - Y * torch.as_tensor(values)).norm(dim=0)
    np.testing.assert_allclose(residuals, true.numpy(), atol=1e-12)


def test_start_vectors_in_the_span_are_refused():
    basis, generator = KrylovBasis(torch.eye(3).double()), torch.Generator().manual_seed(0)
    assert basis.start(torch.tensor([1.0, 0, 0]))
    assert not basis.start(torch.tensor([5.0, 0, 0]))
    assert not basis.step()
    assert basis.exhausted
    assert basis.start_random(generator)
    assert basis.start_random(generator)
    assert basis.complete
    assert not basis.start_random(generator)
