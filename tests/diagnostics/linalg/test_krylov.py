import numpy as np
import pytest
import torch
from linalg_helpers import CountedMatrix, Diagonal, with_spectrum

from trainvitals.diagnostics.linalg.krylov import KrylovBasis, _norm


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


def test_quadrature_integrates_polynomials_exactly():
    values = torch.linspace(-1, 2, 40, dtype=torch.float64)
    basis = KrylovBasis(Diagonal(values))
    start = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis.start(start)
    for _ in range(9):
        basis.step()
    mass = (start / start.norm()).square()
    for num_nodes in (4, 9):
        nodes, weights = basis.quadrature(num_nodes)
        for degree in range(2 * num_nodes):  # Gauss: exact up to 2m − 1
            assert (weights @ nodes**degree) == pytest.approx(float(mass @ values**degree), rel=1e-10)


def test_rounding_is_the_asymmetry_of_products():
    A = with_spectrum(torch.linspace(-1, 2, 30, dtype=torch.float64), 0)
    skew = torch.randn(30, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e-5
    found = []
    for matrix in (A, A + skew - skew.T):
        basis = KrylovBasis(matrix)
        basis.start_random(torch.Generator().manual_seed(0))
        for _ in range(30):
            basis.step()
        found.append(basis.rounding(np.eye(basis.num_products)))
    assert found[0].max() < 1e-14
    expected = np.linalg.norm((skew - skew.T).numpy(), 2)
    assert 0.3 * expected < found[1].max() <= expected * 1.001


def test_the_first_vectors_are_of_the_first_chain_and_stay_the_same():
    A = with_spectrum(torch.linspace(-1, 2, 50, dtype=torch.float64), 0)
    basis, generator = KrylovBasis(A), torch.Generator().manual_seed(0)
    basis.start_random(generator)
    for _ in range(7):
        basis.step()
    rows, trace = basis.first(20)
    assert rows.shape == (7, 50)
    assert trace == pytest.approx(float((rows @ A @ rows.T).trace()))
    basis.start_random(generator)
    basis.step()
    again, _ = basis.first(20)
    assert torch.equal(rows, again)
    assert basis.first(3)[0].shape == (3, 50)


def test_turns_to_the_chain_that_a_ritz_vector_lacks():
    # two blocks, a chain in each: what is wrong with a Ritz vector of one is not mended in the other
    A = torch.block_diag(*[with_spectrum(torch.linspace(0, s, 40, dtype=torch.float64), 0) for s in (1.0, 3.0)])
    basis = KrylovBasis(A)
    for block in (slice(0, 40), slice(40, 80)):
        start = torch.zeros(80, dtype=torch.float64)
        start[block] = torch.randn(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        basis.start(start)
        for _ in range(5):
            basis.step()
    values, residuals, coordinates = basis.ritz()
    own = np.abs(coordinates[:5]).max(0) > 0.5  # Ritz vectors in the first block
    worst = int(np.argmax(np.where(own, values, -1)))
    basis.turn_to(coordinates[:, [worst]])
    basis.step()
    after, less, _ = basis.ritz()
    assert less[np.abs(after - values[worst]).argmin()] < residuals[worst]
    assert basis.first(99)[0].shape[0] == 5


def grown(A, num_steps, **options):
    basis, generator = KrylovBasis(A, **options), torch.Generator().manual_seed(0)
    basis.start_random(generator)
    for _ in range(num_steps):
        basis.step()
    return basis


def test_a_restart_keeps_ritz_pairs_and_their_residuals_and_goes_on_as_before():
    A = with_spectrum(torch.linspace(-1, 2, 60, dtype=torch.float64), 0)
    basis, whole = grown(A, 12), grown(A, 18)
    values, residuals, coordinates = basis.ritz()
    vectors = basis.vectors(coordinates[:, -5:])
    basis.restart(coordinates[:, -5:])
    assert (basis.num_ritz, basis.num_products, basis.size, basis.num_restarts) == (5, 12, 6, 1)
    kept, residuals_kept, turned = basis.ritz()
    np.testing.assert_allclose(kept, values[-5:], atol=1e-12)
    np.testing.assert_allclose(residuals_kept, residuals[-5:], atol=1e-12)
    assert torch.allclose((basis.vectors(turned).T @ vectors).abs(), torch.eye(5).double(), atol=1e-10)
    for _ in range(6):
        basis.step()
    assert basis.num_products == whole.num_products
    after, residuals_after, turned = basis.ritz()
    assert after[-1] > kept[-1]
    assert after[-1] <= whole.ritz()[0][-1] + 1e-12  # no better than without the restart
    Y = basis.vectors(turned)
    np.testing.assert_allclose(residuals_after, (A @ Y - Y * torch.as_tensor(after)).norm(dim=0).numpy(), atol=1e-11)


def test_many_restarts_in_float32_leave_the_basis_orthogonal():
    values = torch.cat([torch.linspace(0, 1, 500), torch.tensor([1e3, 1e4])])
    basis = grown(Diagonal(values), 12)
    for _ in range(40):
        basis.restart(basis.ritz()[2][:, -6:])
        for _ in range(6):
            basis.step()
    Q = basis.vectors(np.eye(basis.num_ritz)).double()
    assert (Q.T @ Q - torch.eye(Q.shape[1])).abs().max() < 50 * torch.finfo(torch.float32).eps


def test_a_restart_copies_in_slabs(monkeypatch):
    A = with_spectrum(torch.linspace(-1, 2, 60, dtype=torch.float64), 0)
    found = []
    for slab in (7, 65_536):
        monkeypatch.setattr("trainvitals.diagnostics.linalg.krylov.SLAB", slab)
        basis = grown(A, 12)
        basis.restart(basis.ritz()[2][:, -5:])
        found.append(basis.vectors(np.eye(5)))
    assert torch.allclose(*found, atol=1e-14)


def test_locked_vectors_are_kept_out_and_their_mixing_is_in_the_residuals():
    A = with_spectrum(torch.linspace(-1, 2, 60, dtype=torch.float64), 0)
    locked = torch.linalg.qr(torch.randn(60, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    basis = KrylovBasis(A)
    basis.lock(locked)
    basis.start_random(torch.Generator().manual_seed(0))
    for _ in range(8):
        basis.step()
    values, residuals, coordinates = basis.ritz()
    Y = basis.vectors(coordinates)
    assert (locked.T @ Y).abs().max() < 1e-13
    np.testing.assert_allclose(residuals, (A @ Y - Y * torch.as_tensor(values)).norm(dim=0).numpy(), atol=1e-12)
    assert basis.num_products == 8
    assert basis.first(8)[0].shape == (8, 60)
    with pytest.raises(ValueError, match="empty basis"):
        basis.lock(locked)


def test_vectors_go_to_the_operator_and_products_to_the_basis(monkeypatch):
    """The operator says that it is on another device: each product goes there and back, and nothing else does."""

    class Elsewhere(Diagonal):
        def __init__(self, values):
            super().__init__(values)
            self.device = torch.device("meta")

    moves = []

    def moved(vector, device):
        moves.append(device.type)
        return vector

    monkeypatch.setattr("trainvitals.diagnostics.linalg.krylov._moved", moved)
    values = torch.linspace(-1, 2, 40, dtype=torch.float64)
    basis = grown(Elsewhere(values), 5, device="cpu")
    assert moves == ["meta", "cpu"] * 5
    np.testing.assert_array_equal(basis.ritz()[0], grown(Diagonal(values), 5).ritz()[0])
    basis.first(3)
    assert moves[-1] == "meta"  # the first vectors are for use beside the operator


def test_a_block_of_steps_spans_the_block_krylov_space_in_one_pass_each():
    A, generator = with_spectrum(torch.linspace(-1, 2, 60, dtype=torch.float64), 0), torch.Generator().manual_seed(0)
    counted, starts = CountedMatrix(A), torch.randn(60, 3, generator=generator, dtype=torch.float64)
    basis = KrylovBasis(counted)
    for start in starts.unbind(1):
        basis.start(start)
    for _ in range(4):
        basis.step_block(3)
    assert (basis.num_products, counted.num_products, basis.num_waiting) == (12, 4, 3)
    naive = torch.linalg.qr(torch.cat([torch.linalg.matrix_power(A, p) @ starts for p in range(4)], 1))[0]  # (60, 12)
    expected, values = np.linalg.eigvalsh((naive.T @ A @ naive).numpy()), basis.ritz()[0]
    np.testing.assert_allclose(values, expected, atol=1e-8)
    Y = basis.vectors(basis.ritz()[2])
    true = (A @ Y - Y * torch.as_tensor(values)).norm(dim=0).numpy()
    np.testing.assert_allclose(basis.ritz()[1], true, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("size", [3, 4096, 300_001])
def test_norms_of_long_float32_vectors_are_right_to_seven_digits(size, scale):
    vector = scale * torch.rand(size, generator=torch.Generator().manual_seed(0))
    exact = float(torch.linalg.vector_norm(vector.double()))
    assert abs(_norm(vector) / exact - 1) < 2e-7


def test_the_norm_of_zero_is_zero():
    assert _norm(torch.zeros(5000)) == 0
