import pytest
import torch
from cases import CASES
from dense_operators import dense_fisher, snapshot_of
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.linalg.fisher import FisherOperator


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_products_equal_the_dense_matrix(case, dtype, tolerance):
    exact = case.build()
    F = dense_fisher(exact.model, exact.loss, exact.batch)
    V = torch.randn(len(F), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with snapshot_of(case.build(dtype)) as snapshot:
        operator = FisherOperator(snapshot.batch_losses(), snapshot.parameters)
        torch.testing.assert_close((operator @ V).double(), F @ V, rtol=tolerance, atol=tolerance * float(F.norm()))
        assert operator.num_products == 2


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(reduction="sum"), nn.CrossEntropyLoss(weight=torch.tensor([5.0, 1.0, 0.1]).double())],
    ids=["sum", "weighted"],
)
def test_a_loss_that_is_no_mean_of_samples_is_refused(loss):
    built = CASES[0].build()
    built.loss = loss
    with snapshot_of(built) as snapshot:
        operator = FisherOperator(snapshot.batch_losses(), snapshot.parameters)
        with pytest.raises(Missing, match="is not the mean of its samples' losses"):
            operator @ torch.ones(operator.shape[0])


def test_outputs_that_are_not_one_a_sample_are_refused():
    built = CASES[0].build()
    built.model.add_module("first", nn.Flatten(0))
    built.loss = lambda z, y: z.view(len(y), -1).logsumexp(1).mean()
    with snapshot_of(built) as snapshot:
        operator = FisherOperator(snapshot.batch_losses(), snapshot.parameters)
        with pytest.raises(Missing, match="not one a sample"):
            operator @ torch.ones(operator.shape[0])
