import numpy as np
import pytest
import torch
from linalg_helpers import with_spectrum

from trainvitals.diagnostics.linalg.diagonal import hutchinson_diagonal


def matrix(size=60, seed=0):
    return with_spectrum(torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), seed)


def estimate(A, seed, num_probes=32):
    return hutchinson_diagonal(A, generator=torch.Generator().manual_seed(seed), num_probes=num_probes)


def test_a_diagonal_operator_is_exact():
    A = torch.diag(torch.tensor([3.0, -1.0, 0.0], dtype=torch.float64))
    found = estimate(A, 0, 3)
    assert found.value.tolist() == [3, -1, 0]
    assert found.standard_error.tolist() == [0, 0, 0]
    assert found.mean_square(slice(0, 2)) == (pytest.approx(5), pytest.approx(0, abs=1e-12))


def test_many_probes_converge_to_the_diagonal():
    A = matrix()
    np.testing.assert_allclose(estimate(A, 0, 20_000).value, torch.diag(A), atol=0.05)


def test_naive_means_are_the_same():
    A = matrix(7)
    found = estimate(A, 3, 5)
    signs = torch.randint(2, (5, 7), generator=torch.Generator().manual_seed(3)) * 2 - 1
    rows = [z * (A @ z) for z in signs.double()]
    np.testing.assert_allclose(found.value, sum(rows) / 5)
    pairs = [float(a[2:6] @ b[2:6]) / 4 for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    assert found.mean_square(slice(2, 6))[0] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("num_probes", [8, 32])
def test_entries_lie_within_twice_their_error_in_nine_of_ten(num_probes):
    A = matrix()
    found = [estimate(A, seed, num_probes) for seed in range(100)]
    inside = [(f.value - torch.diag(A)).abs() <= 2 * f.standard_error for f in found]
    assert torch.stack(inside).double().mean() > 0.92


@pytest.mark.parametrize("num_probes", [8, 32])
@pytest.mark.parametrize("part", [slice(0, 60), slice(5, 15)])
def test_means_and_mean_squares_are_unbiased_and_within_twice_their_error(num_probes, part):
    A = matrix() + torch.eye(60)
    exact = torch.diag(A)[part]
    for name, target in (("mean", exact.mean()), ("mean_square", exact.square().mean())):
        found = np.array([getattr(estimate(A, seed, num_probes), name)(part) for seed in range(200)])
        assert abs(found[:, 0].mean() - float(target)) < 4 * found[:, 0].std() / np.sqrt(200), name
        assert (np.abs(found[:, 0] - float(target)) <= 2 * found[:, 1]).mean() >= 0.9, name


def test_two_probes_are_refused():
    with pytest.raises(ValueError, match="num_probes ≥ 3"):
        estimate(matrix(), 0, 2)
