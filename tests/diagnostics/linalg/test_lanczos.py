import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from linalg_helpers import CountedMatrix, Diagonal, hessian_of, math_attention, with_spectrum  # noqa: F401

from trainvitals.diagnostics.linalg.finite import NonFiniteProduct
from trainvitals.diagnostics.linalg.lanczos import lanczos


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


SPECTRA = {
    "random": torch.linspace(-3, 5, 60, dtype=torch.float64) ** 3,
    "negative is largest in size": torch.cat([torch.linspace(0, 2, 50), torch.tensor([-40.0, 3.0, 5.0])]).double(),
    "cluster": torch.cat([torch.linspace(-1, 1, 80), torch.tensor([10, 9.9999, 9.9998, 5.0, 4.0])]).double(),
    "multiplicities": torch.cat([torch.linspace(-1, 1, 80), torch.tensor([7.0, 7, 7, 3, 3, -5, -5])]).double(),
    "low rank": torch.cat([torch.zeros(90), torch.tensor([4.0, 2, 1, -1])]).double(),
    "all negative": -torch.linspace(1, 9, 40, dtype=torch.float64),
    "tiny scale": 1e-12 * torch.linspace(-1, 2, 50, dtype=torch.float64) ** 3,
    "huge scale": 1e12 * torch.linspace(-1, 2, 50, dtype=torch.float64) ** 3,
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_both_ends_equal_the_dense_eigenvalues(spectrum, seed):
    A = with_spectrum(spectrum, seed)
    found = lanczos(A, 5, 2, generator=seeded(seed), tol=1e-5)
    expected = np.linalg.eigvalsh(A.numpy())
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.top.values, expected[::-1][:5], rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(found.bottom.values, expected[:2], rtol=0, atol=1e-6 * scale)
    assert found.top.converged.all()
    assert found.bottom.converged.all()
    assert found.verified


@pytest.mark.parametrize("seed", range(5))
def test_eigenvalues_of_high_multiplicity_in_a_large_space_are_counted(seed):
    # least squares with C outputs: every eigenvalue of XᵀX stands C times in the Hessian, far from breakdown
    values = torch.cat([torch.linspace(0, 1, 3000), torch.full((4,), 30.0), torch.full((4,), 20.0)]).double()
    found = lanczos(Diagonal(values), 7, generator=seeded(seed))
    np.testing.assert_allclose(found.top.values, [30, 30, 30, 30, 20, 20, 20], rtol=1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_a_basis_that_spans_the_whole_space_is_exact(seed):
    # chains leave vectors unmultiplied behind: they count before the run calls itself verified
    x = torch.randn(50, 20, generator=seeded(), dtype=torch.float64)
    A = torch.block_diag(*[2 * x.T @ x / 150] * 3)
    expected = torch.linalg.eigvalsh(A).numpy()
    found = lanczos(A, 7, 3, generator=seeded(seed))
    assert found.verified
    np.testing.assert_allclose(found.top.values, expected[::-1][:7], rtol=1e-4)
    np.testing.assert_allclose(found.bottom.values, expected[:3], rtol=1e-3)


def test_residuals_bound_the_error_and_are_the_true_residuals():
    A = with_spectrum(torch.linspace(-1, 4, 300, dtype=torch.float64) ** 3, 0)
    found = lanczos(A, 4, 1, generator=seeded(), tol=1e-2, vectors=True)
    assert found.num_products < 300
    expected = torch.linalg.eigvalsh(A)
    for pairs in (found.top, found.bottom):
        Y, theta = pairs.vectors, torch.as_tensor(pairs.values.copy())
        assert torch.allclose(Y.T @ Y, torch.eye(Y.shape[1]).double(), atol=1e-10)
        true = torch.linalg.vector_norm(A @ Y - Y * theta, dim=0)
        np.testing.assert_allclose(pairs.residuals, true.numpy(), rtol=1e-6)
        distance = (expected[:, None] - theta).abs().min(0).values
        assert (distance.numpy() <= pairs.residuals * (1 + 1e-9)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ten_outliers_of_twenty_thousand_are_ten(dtype):
    bulk = torch.randn(19_990, generator=seeded(3), dtype=torch.float64)
    bulk = bulk / bulk.abs().max()
    outliers = torch.arange(10, 20, dtype=torch.float64)
    found = lanczos(Diagonal(torch.cat([bulk, outliers]).to(dtype)), 12, generator=seeded(), max_iterations=300)
    assert (found.top.values > 1.5).sum() == 10
    np.testing.assert_allclose(found.top.values[:10], outliers.numpy()[::-1], rtol=1e-4)


@pytest.mark.parametrize(
    "matrix",
    [torch.zeros(6, 6), torch.eye(6), torch.diag(torch.tensor([2.0, 2, 2, 0, 0, 0])),
     torch.block_diag(torch.ones(3, 3), torch.zeros(1, 1), -torch.ones(2, 2))],
    ids=["zero", "identity", "projector", "blocks"],
)  # fmt: skip
def test_breakdown_goes_on_with_a_fresh_vector(matrix):
    found = lanczos(matrix.double(), 5, 3, generator=seeded())
    expected = torch.linalg.eigvalsh(matrix.double()).numpy()
    np.testing.assert_allclose(found.top.values, expected[::-1][:5], atol=1e-12)
    np.testing.assert_allclose(found.bottom.values, expected[:3], atol=1e-12)
    assert found.top.converged.all()
    assert found.verified


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_matrices(size):
    A = with_spectrum(torch.arange(1, size + 1, dtype=torch.float64), 0)
    found = lanczos(A, 5, 5, generator=seeded())
    np.testing.assert_allclose(found.top.values, np.arange(size, 0, -1), rtol=1e-12)
    np.testing.assert_allclose(found.bottom.values, np.arange(1, size + 1), rtol=1e-12)


def test_large_zero_operator_costs_little():
    A = CountedMatrix(Diagonal(torch.zeros(5000)))
    found = lanczos(A, 5, 1, generator=seeded())
    assert found.top.values.tolist() == [0.0] * 5
    assert found.verified
    assert A.num_products == found.num_products <= 8


def test_a_spent_budget_is_said():
    A = with_spectrum(torch.linspace(0, 1, 500, dtype=torch.float64), 0)
    found = lanczos(A, 5, generator=seeded(), tol=1e-8, max_iterations=12)
    assert found.num_products == 12
    assert not found.verified
    assert not found.top.converged.all()
    expected = np.linspace(0, 1, 500)  # each Ritz value has an eigenvalue within its residual, if not the k-th
    assert (np.abs(found.top.values - expected[:, None]).min(0) <= found.top.residuals).all()


def test_same_generator_same_bits_and_global_state_untouched():
    A = with_spectrum(SPECTRA["random"], 0)
    before = torch.get_rng_state()
    one, two = (lanczos(A, 3, generator=seeded(9)).top.values for _ in range(2))
    assert (one == two).all()
    assert torch.equal(before, torch.get_rng_state())


def test_non_finite_products_are_named():
    with pytest.raises(NonFiniteProduct, match="expected finite"):
        lanczos(Diagonal(torch.tensor([1.0, float("nan"), 2.0])), 1, generator=seeded())


def test_bad_arguments_are_told():
    with pytest.raises(ValueError, match="at least one eigenvalue"):
        lanczos(torch.eye(3), 0, 0, generator=seeded())
    with pytest.raises(ValueError, match="tol > 0"):
        lanczos(torch.eye(3), 1, tol=0.0, generator=seeded())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float32, 1e-2)])
def test_case_list_against_the_dense_hessian(case, dtype, tolerance):
    exact = case.build()
    dense = np.linalg.eigvalsh(dense_hessian(exact.model, exact.loss, exact.batch).numpy())
    built = case.build(dtype)
    found = lanczos(hessian_of(built.model, built.loss, built.batches), 5, 1, generator=seeded())
    np.testing.assert_allclose(found.top.values, dense[::-1][:5], rtol=tolerance)
    np.testing.assert_allclose(found.bottom.values, dense[:1], rtol=tolerance)
