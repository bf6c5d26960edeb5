import pytest
import torch
from linalg_helpers import CountedMatrix, with_spectrum

from trainvitals.diagnostics.linalg.complement import Complement


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_spectrum_of_the_complement_is_the_rest_of_the_spectrum(dtype):
    A = with_spectrum(torch.linspace(-1, 3, 30, dtype=torch.float64), 0)
    values, vectors = torch.linalg.eigh(A)
    C = Complement(A.to(dtype), vectors[:, 20:].T.to(dtype))
    dense = torch.stack([C @ e for e in torch.eye(30, dtype=dtype)]).double()
    expected = torch.cat([values[:20], torch.zeros(10).double()]).sort().values
    torch.testing.assert_close(torch.linalg.eigvalsh((dense + dense.T) / 2), expected, atol=1e-5, rtol=0)
    last = Complement(A.to(dtype), vectors[:, 25:].T.to(dtype))
    both = last.with_more(vectors[:, 20:25].T.to(dtype), values[20:25].numpy())
    v = torch.ones(30, dtype=dtype)
    torch.testing.assert_close(both @ v, C @ v)


def test_what_is_removed_leaves_nothing_even_of_a_vector_that_lies_almost_within():
    Q, _ = torch.linalg.qr(torch.randn(200, 12, generator=torch.Generator().manual_seed(0)))
    C = Complement(torch.eye(200), Q.T.contiguous())
    left = C.remove(Q @ torch.ones(12) + 1e-4 * torch.ones(200))
    assert torch.linalg.vector_norm(Q.T @ left) < 1e-6 * torch.linalg.vector_norm(left)


def test_without_vectors_it_is_the_operator_and_each_product_is_one():
    A = CountedMatrix(with_spectrum(torch.linspace(-1, 3, 10, dtype=torch.float64), 0))
    v = torch.arange(10.0, dtype=torch.float64)
    assert torch.equal(Complement(A, torch.empty(0, 10).double()) @ v, A @ v)
    assert A.num_products == 2


def test_rounding_beside_the_deflated_eigenvalues_is_zero():
    A = with_spectrum(torch.cat([torch.zeros(20), torch.tensor([1e6])]).double(), 0)
    values, vectors = torch.linalg.eigh(A)
    C = Complement(A, torch.empty(0, 21).double()).with_more(vectors[:, 20:].T, values[20:].numpy())
    assert not (C @ torch.ones(21).double()).any()
    kept = Complement(A + torch.eye(21), torch.empty(0, 21).double()).with_more(vectors[:, 20:].T, values[20:].numpy())
    v = torch.ones(21).double()
    torch.testing.assert_close(kept @ v, kept.remove(v), atol=1e-8, rtol=0)
