import numpy as np
import pytest
import torch
from linalg_helpers import Diagonal, with_spectrum

from trainvitals.diagnostics.linalg.finite import NonFiniteProduct
from trainvitals.diagnostics.linalg.whole_spectrum import dense, whole_spectrum


class Blocks:
    """A matrix that wants columns by the four."""

    block_size = 4

    def __init__(self, matrix):
        self.matrix, self.widths = matrix, []
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, vectors):
        self.widths.append(vectors.shape[1])
        return self.matrix @ vectors


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_eigenvalues_are_the_dense_ones_within_their_errors(dtype):
    values = torch.linspace(-2, 5, 40, dtype=torch.float64) ** 3
    found, errors = whole_spectrum(with_spectrum(values, 0).to(dtype))
    assert (np.abs(found - values.numpy()) <= 40**0.5 * errors).all()
    assert errors.max() < 1e3 * torch.finfo(dtype).eps * 125


def test_asymmetry_of_the_products_is_in_the_errors():
    A = with_spectrum(torch.linspace(-2, 5, 20, dtype=torch.float64), 0)
    noise = 1e-3 * torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, errors = whole_spectrum(A + noise)
    assert (np.abs(found - np.linalg.eigvalsh(A.numpy())) < 2 * errors).all()
    assert errors.max() < 0.01


def test_blocks_of_columns_give_the_same_matrix():
    A = with_spectrum(torch.linspace(-2, 5, 10, dtype=torch.float64), 0)
    blocks = Blocks(A)
    np.testing.assert_allclose(dense(blocks), A.numpy(), atol=1e-14)
    assert blocks.widths == [4, 4, 2]
    np.testing.assert_array_equal(dense(Diagonal(torch.arange(3.0))), np.diag([0, 1, 2]))


def test_overflow_is_told():
    with pytest.raises(NonFiniteProduct):
        whole_spectrum(torch.full((2, 2), float("inf")))
