import pytest
import torch
from cases import CASES
from dense_operators import dense_gauss_newton, snapshot_of
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.linalg.gauss_newton import GaussNewtonOperator

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_products_equal_the_dense_matrix(case, dtype, tolerance):
    exact = case.build()
    G = dense_gauss_newton(exact.model, exact.loss, exact.batch)
    V = torch.randn(len(G), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with snapshot_of(case.build(dtype)) as snapshot:
        operator = GaussNewtonOperator(snapshot.batch_losses(), snapshot.parameters)
        assert operator.shape == G.shape
        assert operator.names == tuple(snapshot.parameters)
        torch.testing.assert_close((operator @ V).double(), G @ V, rtol=tolerance, atol=tolerance * float(G.norm()))
        torch.testing.assert_close((operator @ V[:, 0]).double(), G @ V[:, 0], rtol=tolerance,
                                   atol=tolerance * float(G.norm()))  # fmt: skip
        assert operator.num_products == 4
        operator.release()
        assert torch.equal(operator @ V[:, 1].to(dtype), (operator @ V.to(dtype))[:, 1])


def test_a_linear_model_has_the_hessian_itself():
    x = torch.randn(20, 4, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    built = type("B", (), {"model": model, "loss": nn.functional.mse_loss, "batches": (x, torch.zeros(20, 1).double())})
    with snapshot_of(built) as snapshot:
        G = GaussNewtonOperator(snapshot.batch_losses(), snapshot.parameters) @ torch.eye(4).double()
    torch.testing.assert_close(G, 2 * x.T @ x / 20)


def test_a_loss_linear_in_the_outputs_has_no_gauss_newton_curvature():
    built = CASES[0].build()
    built.loss = lambda z, y: z.gather(1, y[:, None]).mean()
    with snapshot_of(built) as snapshot:
        operator = GaussNewtonOperator(snapshot.batch_losses(), snapshot.parameters)
        assert not (operator @ torch.ones(operator.shape[0])).any()


def test_with_forward_the_loss_does_not_split():
    built = CASES[0].build()

    def forward(model, batch):
        z = model(batch[0])
        return z, built.loss(z, batch[1])

    with snapshot_of(built, loss=None, forward=forward) as snapshot:
        operator = GaussNewtonOperator(snapshot.batch_losses(), snapshot.parameters)
        with pytest.raises(Missing, match="forward="):
            operator @ torch.ones(operator.shape[0])


def test_bad_arguments_are_told():
    with pytest.raises(ValueError, match="at least one batch"):
        GaussNewtonOperator([], {"w": torch.zeros(2)})
    with snapshot_of(CASES[0].build()) as snapshot:
        operator = GaussNewtonOperator(snapshot.batch_losses(), snapshot.parameters)
        with pytest.raises(ValueError, match="expected a vector"):
            operator @ torch.ones(3)
        assert (operator @ torch.ones(operator.shape[0], 0)).shape == (operator.shape[0], 0)
