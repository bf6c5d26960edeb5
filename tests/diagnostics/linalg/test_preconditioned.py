import pytest
import torch
from linalg_helpers import with_spectrum

from trainvitals.diagnostics.linalg.lanczos import lanczos
from trainvitals.diagnostics.linalg.preconditioned import PreconditionedOperator


def test_has_the_eigenvalues_of_the_scaled_and_shifted_matrix():
    generator = torch.Generator().manual_seed(0)
    A = with_spectrum(torch.linspace(-2, 3, 40, dtype=torch.float64), 0)
    D = torch.rand(40, generator=generator, dtype=torch.float64) * 100
    D[:3] = 0
    W = torch.rand(40, generator=generator, dtype=torch.float64)
    found = lanczos(PreconditionedOperator(A, D, W), 3, 2, generator=generator, tol=1e-6)
    expected = torch.linalg.eigvals(D[:, None] * (A + torch.diag(W))).real.sort().values
    assert torch.as_tensor(found.top.values.copy()).allclose(expected.flip(0)[:3], rtol=1e-8)
    assert torch.as_tensor(found.bottom.values.copy()).allclose(expected[:2], rtol=1e-8)


def test_bad_diagonals_are_told():
    with pytest.raises(ValueError, match="diagonal of shape"):
        PreconditionedOperator(torch.eye(3), torch.ones(2), torch.zeros(3))
    for bad in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite diagonal"):
            PreconditionedOperator(torch.eye(3), torch.tensor([1.0, bad, 1.0]), torch.zeros(3))
