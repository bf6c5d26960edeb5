import numpy as np
import pytest
import torch
from cases import CASES, dense_hessian
from linalg_helpers import CountedMatrix, Diagonal, hessian_of, math_attention, with_spectrum  # noqa: F401

from trainvitals.diagnostics.linalg.finite import NonFiniteProduct
from trainvitals.diagnostics.linalg.lanczos import Eigenpairs, _max_basis, lanczos


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
    expected = torch.linalg.eigvalsh(A)
    for num_top, num_bottom in ((4, 0), (0, 2)):
        found = lanczos(A, num_top, num_bottom, generator=seeded(), tol=1e-2, vectors=True)
        assert found.num_products < 300
        pairs = found.top if num_top else found.bottom
        Y, theta = pairs.vectors, torch.as_tensor(pairs.values.copy())
        assert torch.allclose(Y.T @ Y, torch.eye(Y.shape[1]).double(), atol=1e-10)
        true = torch.linalg.vector_norm(A @ Y - Y * theta, dim=0)
        np.testing.assert_allclose(pairs.residuals, true.numpy(), rtol=1e-6, atol=1e-12)
        assert pairs.residuals.max() > 1e-6  # there is something to compare
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


DENSE = {}


def spectrum_of(case):
    if case.name not in DENSE:
        built = case.build()
        DENSE[case.name] = np.linalg.eigvalsh(dense_hessian(built.model, built.loss, built.batch).numpy())
    return DENSE[case.name]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_default_accuracy_on_the_case_list_is_kept_and_the_errors_hold(case):
    exact = spectrum_of(case)
    for seed in range(20):
        found = lanczos(Diagonal(torch.tensor(exact)), 5, 1, generator=seeded(seed))
        for pairs, expected in ((found.top, exact[::-1][:5]), (found.bottom, exact[:1])):
            np.testing.assert_allclose(pairs.values, expected, rtol=5e-5)
            assert (np.abs(pairs.values - expected) <= pairs.errors + 1e-13).all()
            assert (pairs.errors <= pairs.residuals * (1 + 1e-12)).all()
            assert (pairs.errors <= 1e-4 * np.maximum(np.abs(expected), np.abs(exact).max() / 10) * 1.01).all()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_rounding_of_float32_products_is_in_the_errors(case):
    exact, built = spectrum_of(case), case.build(torch.float32)
    found = lanczos(hessian_of(built.model, built.loss, built.batches), 5, 1, generator=seeded(), tol=1e-3)
    scale = np.abs(exact).max()
    for pairs, expected in ((found.top, exact[::-1][:5]), (found.bottom, exact[:1])):
        assert pairs.converged.all()
        np.testing.assert_allclose(pairs.values, expected, rtol=2e-3)
        assert (np.abs(pairs.values - expected) <= pairs.errors + 1e-6 * scale).all()  # weights are rounded too


def test_copies_are_looked_for_where_they_matter_and_only_there():
    values = torch.cat([torch.linspace(0, 1, 3000), torch.tensor([30.0, 30, 30, 20, 20, 10, 5])]).double()
    run = {v: lanczos(Diagonal(values), 4, generator=seeded(), verify=v) for v in (True, False)}
    np.testing.assert_allclose(run[True].top.values, [30, 30, 30, 20], rtol=1e-4)
    np.testing.assert_allclose(run[False].top.values, [30, 20, 10, 5], rtol=1e-4)
    one = [lanczos(Diagonal(values), 1, generator=seeded(), verify=v).num_products for v in (True, False)]
    assert one[0] == one[1] < 10  # a copy of the largest leaves the largest as it is


def test_hidden_copies_are_missed_no_more_often_than_the_stated_probability():
    """One of a thousand start vectors may be unlucky: 300 runs with two copies each; 1 or 2 of 1,500 missed one."""
    num_missed = 0
    values = torch.cat([torch.linspace(-1, 1, 600), torch.tensor([9.0, 9.0, 6.0, 4.0, 4.0, 2.0])]).double()
    for seed in range(300):
        found = lanczos(Diagonal(values), 5, generator=seeded(seed))
        num_missed += not np.allclose(found.top.values, [9, 9, 6, 4, 4], rtol=1e-4)
        assert found.verified
    assert num_missed <= 3  # 0.6 are expected at that probability; more than 3 in one of 300 such tests


def test_the_outermost_alone_is_not_mistaken_for_its_neighbour():
    """One Ritz value can rest at λ2 with a small residual; without its guard 2 % of these were wrong."""
    for seed in range(100):
        generator = torch.Generator().manual_seed(1000 + seed)
        Q, _ = torch.linalg.qr(torch.randn(27, 27, generator=generator, dtype=torch.float64))
        bulk = torch.rand(25, generator=generator, dtype=torch.float64) * 1.2 - 0.6
        A = Q @ torch.diag(torch.cat([torch.tensor([1.0, 0.98], dtype=torch.float64), bulk])) @ Q.T
        for sign, end in ((1, "top"), (-1, "bottom")):
            found = lanczos(sign * A, int(sign > 0), int(sign < 0), generator=torch.Generator().manual_seed(seed))
            assert getattr(found, end).values.tolist() == pytest.approx([sign], abs=1e-3)


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_a_bounded_basis_gives_the_same_eigenvalues(spectrum):
    for seed in range(3):
        A = with_spectrum(spectrum, seed)
        expected = np.linalg.eigvalsh(A.numpy())
        scale = np.abs(expected).max()
        found = lanczos(A, 5, 2, generator=seeded(seed), tol=1e-5, max_basis=22, max_iterations=2000)
        np.testing.assert_allclose(found.top.values, expected[::-1][:5], rtol=0, atol=1e-6 * scale)
        np.testing.assert_allclose(found.bottom.values, expected[:2], rtol=0, atol=1e-6 * scale)
        assert found.top.converged.all()
        assert found.basis_bytes <= 22 * 8 * len(A)


def test_after_restarts_residuals_are_the_true_residuals_and_memory_is_bounded():
    values = torch.linspace(-1, 1.5, 400, dtype=torch.float64) ** 3
    A = with_spectrum(values, 0)
    free = lanczos(A, 3, 1, generator=seeded(), tol=1e-5, vectors=True)
    found = lanczos(A, 3, 1, generator=seeded(), tol=1e-5, vectors=True, max_basis=16, max_iterations=2000)
    assert free.basis_bytes > found.basis_bytes == 16 * 8 * 400
    assert found.num_products > free.num_products > 16
    for pairs, bound in ((found.top, free.top), (found.bottom, free.bottom)):
        Y, theta = pairs.vectors, torch.as_tensor(pairs.values.copy())
        true = torch.linalg.vector_norm(A @ Y - Y * theta, dim=0)
        np.testing.assert_allclose(pairs.residuals, true.numpy(), rtol=1e-4, atol=1e-12)
        assert torch.allclose(Y.T @ Y, torch.eye(Y.shape[1]).double(), atol=1e-10)
        np.testing.assert_allclose(pairs.values, bound.values, rtol=1e-5)


def test_a_copy_search_cut_short_by_the_basis_is_not_called_verified():
    values = torch.linspace(-1, 1.5, 400, dtype=torch.float64) ** 3
    runs = [lanczos(Diagonal(values), 5, generator=seeded(), max_basis=b, max_iterations=2000) for b in (12, None)]
    assert [r.verified for r in runs] == [False, True]
    np.testing.assert_allclose(runs[0].top.values, values.numpy()[::-1][:5], rtol=1e-4)


def test_copies_are_found_with_a_bounded_basis():
    values = torch.cat([torch.linspace(-1, 1, 600), torch.tensor([9.0, 9.0, 6.0, 4.0, 4.0, 2.0])]).double()
    for seed in range(30):
        found = lanczos(Diagonal(values), 5, generator=seeded(seed), max_basis=24)
        np.testing.assert_allclose(found.top.values, [9, 9, 6, 4, 4], rtol=1e-4)


def test_leading_vectors_are_the_same_with_restarts():
    A = with_spectrum(torch.linspace(-1, 1.5, 300, dtype=torch.float64) ** 3, 0)
    free, bounded = (lanczos(A, 2, generator=seeded(), num_leading=8, max_basis=b) for b in (None, 14))
    assert torch.equal(free.leading[0], bounded.leading[0])
    assert free.leading[1] == bounded.leading[1]


def test_the_default_bound_is_a_gibibyte():
    class Wide:
        shape, dtype, device = torch.Size([2**24] * 2), torch.float32, torch.device("cpu")

    assert _max_basis(None, 1, Wide(), 1) == 16
    assert _max_basis(None, 6, Wide(), 1) == 28  # at least three for each and ten more
    assert _max_basis(None, 6, Diagonal(torch.ones(1000)), 1) == 1000


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("seed", range(3))
def test_locked_pairs_are_not_looked_for_again(spectrum, seed):
    A = CountedMatrix(with_spectrum(spectrum, seed))
    first = lanczos(A, 4, generator=seeded(seed), tol=1e-7, vectors=True)
    found = lanczos(A, 7, generator=seeded(seed + 1), tol=1e-5, vectors=True, locked=first.top)
    assert A.num_products == first.num_products + found.num_products
    expected = torch.linalg.eigvalsh(A @ torch.eye(len(spectrum)).double()).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.top.values, expected[::-1][:7], rtol=0, atol=1e-6 * scale)
    Y, theta = found.top.vectors, torch.as_tensor(found.top.values.copy())
    assert torch.allclose(Y.T @ Y, torch.eye(7).double(), atol=1e-6)
    true = torch.linalg.vector_norm(A @ Y - Y * theta, dim=0).numpy()
    np.testing.assert_allclose(found.top.residuals, true, rtol=1e-2, atol=1e-9 * scale)


def test_locking_saves_products():
    values = torch.cat([torch.linspace(-1, 1, 2000), torch.linspace(2, 9, 12)]).double()
    saved = []
    for seed in range(10):
        first = lanczos(Diagonal(values), 8, generator=seeded(seed), vectors=True)
        more = lanczos(Diagonal(values), 10, generator=seeded(seed + 50), locked=first.top)
        again = lanczos(Diagonal(values), 10, generator=seeded(seed + 50), vectors=True)
        np.testing.assert_allclose(more.top.values, values.numpy()[::-1][:10], rtol=1e-4)
        saved.append(1 - more.num_products / again.num_products)
    assert np.mean(saved) > 0.3


def test_what_locked_pairs_mix_into_others_is_in_the_residuals():
    A = with_spectrum(torch.linspace(-1, 3, 200, dtype=torch.float64) ** 3, 0)
    rough = lanczos(A, 2, generator=seeded(), tol=3e-2, vectors=True)
    assert rough.top.residuals.max() > 0.1
    found = lanczos(A, 4, generator=seeded(1), tol=1e-1, vectors=True, locked=rough.top)
    Y, theta = found.top.vectors, torch.as_tensor(found.top.values.copy())
    true = torch.linalg.vector_norm(A @ Y - Y * theta, dim=0).numpy()
    np.testing.assert_allclose(found.top.residuals, true, rtol=1e-6)


def test_a_basis_on_the_cpu_is_the_same_run():
    A = with_spectrum(SPECTRA["random"], 0).float()
    one, two = (lanczos(A, 3, 1, generator=seeded(), basis_device=d, vectors=True) for d in (None, "cpu"))
    assert (one.top.values == two.top.values).all()
    assert torch.equal(one.top.vectors, two.top.vectors)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_basis_on_the_cpu_serves_an_operator_on_the_gpu():
    A = with_spectrum(SPECTRA["random"], 0).cuda()
    found = lanczos(A, 3, 1, generator=seeded(), basis_device="cpu", vectors=True, num_leading=4)
    expected = torch.linalg.eigvalsh(A).cpu().numpy()
    np.testing.assert_allclose(found.top.values, expected[::-1][:3], rtol=1e-5)
    assert found.top.vectors.device.type == "cpu"
    assert found.leading[0].device == A.device


@pytest.mark.parametrize(
    ("options", "words"),
    [({"max_basis": 6}, "max_basis ≥"),
     ({"locked": Eigenpairs(*[np.zeros(2)] * 4)}, "without vectors"),
     ({"locked": Eigenpairs(*[np.zeros(3)] * 4, torch.eye(90)[:, :3])}, "fewer than num_top=3")],
    ids=["basis", "no vectors", "too many locked"],
)  # fmt: skip
def test_bad_bounds_and_locked_pairs_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        lanczos(torch.eye(90), 3, 1, generator=seeded(), **options)


@pytest.mark.parametrize("block_size", [2, 4])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_blocks_give_the_same_eigenvalues(spectrum, block_size):
    for seed in range(3):
        A = with_spectrum(spectrum, seed)
        expected = np.linalg.eigvalsh(A.numpy())
        scale = np.abs(expected).max()
        for max_basis in (None, 30):
            found = lanczos(A, 5, 2, generator=seeded(seed), tol=1e-5, block_size=block_size, max_basis=max_basis,
                            max_iterations=2000)  # fmt: skip
            np.testing.assert_allclose(found.top.values, expected[::-1][:5], rtol=0, atol=1e-6 * scale)
            np.testing.assert_allclose(found.bottom.values, expected[:2], rtol=0, atol=1e-6 * scale)
            assert found.top.converged.all()


def test_a_block_meets_copies_in_a_third_of_the_passes():
    values = torch.cat([torch.linspace(-1, 1, 600), torch.tensor([9.0, 9.0, 9.0, 6.0, 6.0, 6.0, 4.0])]).double()
    A = torch.diag(values)
    for seed in range(20):
        block, single = CountedMatrix(A), CountedMatrix(A)
        found = [lanczos(a, 5, generator=seeded(seed), block_size=b) for a, b in ((block, 4), (single, 1))]
        for run in found:
            np.testing.assert_allclose(run.top.values, [9, 9, 9, 6, 6], rtol=1e-4)
            assert run.verified
        assert block.num_products < single.num_products / 2  # passes: no value was met as often as four times
        assert found[0].num_products <= 4 * block.num_products


def test_more_copies_than_the_block_has_vectors_are_looked_for():
    values = torch.cat([torch.linspace(-1, 1, 600), torch.full((5,), 9.0), torch.tensor([6.0, 4.0])]).double()
    for seed in range(30):
        found = lanczos(torch.diag(values), 6, generator=seeded(seed), block_size=2)
        np.testing.assert_allclose(found.top.values, [9, 9, 9, 9, 9, 6], rtol=1e-4)
