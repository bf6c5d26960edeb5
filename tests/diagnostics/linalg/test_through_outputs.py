import pytest
import torch
from cases import CASES
from dense_operators import math_attention, snapshot_of, trainable
from torch import nn

from trainvitals.diagnostics.linalg.batch_operator import BatchOperator
from trainvitals.diagnostics.linalg.through_outputs import through_outputs


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


class Identity(BatchOperator):
    """JᵀJ, averaged over batches by samples."""

    def _batch_product(self, batch, way):
        return through_outputs(batch, self._leaves, lambda batch, outputs: lambda s: s, way)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_identity_in_between_gives_the_gram_matrix_of_the_jacobian(case):
    built = case.build()
    total = 0
    for x, _ in built.batches:
        with math_attention():
            z = built.model.eval()(x)
            rows = [torch.autograd.grad(entry, trainable(built.model), retain_graph=True, materialize_grads=True)
                    for entry in z.reshape(-1)]  # fmt: skip
        J = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
        total = total + len(x) / len(built.batch[0]) * J.T @ J
    v = torch.randn(len(total), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with snapshot_of(built) as snapshot:
        torch.testing.assert_close(Identity(snapshot.batch_losses(), snapshot.parameters) @ v, total @ v)


def test_outputs_that_do_not_depend_on_the_parameters_give_zero():
    built = CASES[0].build()
    built.model.append(Detached())
    with snapshot_of(built) as snapshot:
        operator = Identity(snapshot.batch_losses(), snapshot.parameters)
        assert not (operator @ torch.ones(operator.shape[0])).any()
