import pytest
import torch
from cases import CASES, dense_hessian
from dense_operators import dense_gauss_newton, snapshot_of

from trainvitals.diagnostics.linalg.difference import DifferenceOperator
from trainvitals.diagnostics.linalg.gauss_newton import GaussNewtonOperator


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_hessian_minus_gauss_newton_equals_the_dense_difference(case):
    built = case.build()
    expected = dense_hessian(built.model, built.loss, built.batch) - dense_gauss_newton(
        built.model, built.loss, built.batch
    )
    V = torch.randn(len(expected), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with snapshot_of(case.build()) as snapshot:
        G = GaussNewtonOperator(snapshot.batch_losses(), snapshot.parameters)
        residual = DifferenceOperator(snapshot.hessian, G)
        assert residual.shape == expected.shape
        torch.testing.assert_close(residual @ V, expected @ V)
        torch.testing.assert_close(residual @ V[:, 0], expected @ V[:, 0])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        DifferenceOperator(torch.eye(2), torch.eye(3))
