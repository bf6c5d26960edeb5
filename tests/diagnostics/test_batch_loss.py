import pytest
import torch
from cases import CASES
from dense_operators import snapshot_of
from perturbed import gradient_at, loss_at, weights_of
from quadratics import linear_regression

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.batch_loss import mean_gradient, mean_loss

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


@every_case
def test_loss_and_gradient_at_other_weights_weigh_batches_by_samples(case):
    built = case.build()
    point = [1.1 * p + 0.01 for p in weights_of(built)]
    with snapshot_of(built) as snapshot:
        batches = snapshot.batch_losses()
        assert sum(b.share for b in batches) == pytest.approx(1)
        assert sum(b.num_samples for b in batches) == len(built.batch[0])
        assert mean_loss(batches, point) == pytest.approx(loss_at(built, point), rel=1e-10)
        torch.testing.assert_close(mean_gradient(batches, point), list(gradient_at(built, point)))


@every_case
def test_the_loss_splits_into_outputs_and_the_loss_of_each_sample(case):
    built = case.build()
    with snapshot_of(built) as snapshot:
        for batch in snapshot.batch_losses():
            values = list(snapshot.parameters.values())
            z = batch.outputs(values)
            assert float(batch.mean_of_outputs(z)) == pytest.approx(float(batch.mean(values)), rel=1e-10)
            alone = [float(batch.loss_of_sample(z[i : i + 1], i)) for i in range(batch.num_samples)]
            assert sum(alone) / len(alone) == pytest.approx(float(batch.mean(values)), rel=1e-10)


def test_mini_batches_part_the_probe_and_repeat():
    built = linear_regression(num_samples=50)[0]
    with snapshot_of(built) as snapshot:
        one, other = (snapshot.batch_losses(8) for _ in range(2))
        values = list(snapshot.parameters.values())
        assert [b.num_samples for b in one] == [8] * 6
        assert [float(b.mean(values)) for b in one] == [float(b.mean(values)) for b in other]
        assert len({float(b.mean(values)) for b in one}) == 6


def test_a_loss_that_is_not_finite_is_missing():
    built, theta, _, _ = linear_regression()
    with snapshot_of(built) as snapshot, pytest.raises(Missing, match="not finite"):
        mean_loss(snapshot.batch_losses(), [theta[None] * 1e200])
