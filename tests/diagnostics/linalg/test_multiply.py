import pytest
import torch
from linalg_helpers import CountedMatrix, with_spectrum

from trainvitals.diagnostics.linalg.finite import NonFiniteProduct
from trainvitals.diagnostics.linalg.multiply import block_size, multiply_rows
from trainvitals.diagnostics.linalg.trace import hutchinson


class Blocks:
    """A matrix that wants columns by the four."""

    block_size = 4

    def __init__(self, matrix):
        self.matrix, self.widths = matrix, []
        self.shape, self.dtype, self.device = matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, vectors):
        self.widths.append(vectors.shape[1])
        return self.matrix @ vectors


A = with_spectrum(torch.linspace(-2, 5, 20, dtype=torch.float64), 0)


def test_blocks_and_single_vectors_give_the_same_products():
    rows = torch.randn(10, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blocks, single = Blocks(A), CountedMatrix(A)
    torch.testing.assert_close(multiply_rows(blocks, rows), rows @ A)
    torch.testing.assert_close(multiply_rows(single, rows), rows @ A)
    assert blocks.widths == [4, 4, 2]
    assert single.num_products == 10
    assert (block_size(blocks), block_size(single)) == (4, 1)
    assert multiply_rows(single, rows[:0]).shape == multiply_rows(blocks, rows[:0]).shape == (0, 20)


def test_a_trace_by_blocks_is_the_trace_one_by_one():
    for tol in (None, 0.3):
        found = [
            hutchinson(operator, generator=torch.Generator().manual_seed(0), tol=tol, max_probes=50)
            for operator in (A, Blocks(A))
        ]
        assert found[0].num_probes == found[1].num_probes
        assert found[0].value == pytest.approx(found[1].value, rel=1e-12)


def test_overflow_is_told():
    with pytest.raises(NonFiniteProduct):
        multiply_rows(torch.full((2, 2), float("inf")), torch.ones(1, 2))
