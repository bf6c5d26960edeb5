"""Chance levels against the best constant prediction, found by minimising the loss itself."""

import math

import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation
from torch.nn import functional as F

from trainvitals.diagnostics.chance import IGNORED, Chance

GENERATOR = torch.Generator().manual_seed(0)


def measured(loss, outputs, targets):
    return Chance().measure(FakeSnapshot(train=evaluation(float(loss(outputs, targets)), outputs, targets)))


def best_constant(loss, shape, targets):
    """Minimise the loss over one row of outputs that all samples share."""
    row = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([row], lr=1, max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        value = loss(row.expand(len(targets), *shape), targets)
        value.backward()
        return value

    optimizer.step(closure)
    return float(loss(row.detach().expand(len(targets), *shape), targets))


def half_squared_error_summed(outputs, targets):
    return 0.5 * (outputs - targets).square().sum(1).mean()


def squared_error_on_one_hot(outputs, targets):
    return F.mse_loss(outputs, F.one_hot(targets, outputs.shape[1]).to(outputs.dtype))


LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
REALS = torch.randn(9, 3, generator=GENERATOR, dtype=torch.float64)
BITS = (REALS > 0.3).double()


@pytest.mark.parametrize(
    ("loss", "targets", "kind"),
    [
        (F.cross_entropy, LABELS, "cross-entropy"),
        (squared_error_on_one_hot, LABELS, "squared error"),
        (F.mse_loss, REALS, "squared error"),
        (half_squared_error_summed, REALS, "half squared error"),
        (F.binary_cross_entropy_with_logits, BITS, "binary cross-entropy"),
    ],
    ids=["cross-entropy", "squared on one-hot", "squared", "half squared, summed", "binary cross-entropy"],
)
def test_the_loss_is_recognised_and_its_chance_level_is_that_of_the_best_constant(loss, targets, kind):
    outputs = torch.randn(9, 3, generator=GENERATOR, dtype=torch.float64)
    found = measured(loss, outputs, targets)["loss"]
    assert found.details == {"loss": kind}
    assert found.value == pytest.approx(best_constant(loss, (3,), targets), rel=1e-6)


def test_token_losses_count_the_labels_that_are_not_ignored_shifted_or_not():
    tokens = torch.randint(0, 5, (4, 6), generator=GENERATOR)
    tokens[0, :3] = IGNORED
    outputs = torch.randn(4, 6, 5, generator=GENERATOR, dtype=torch.float64)
    for seen, wanted in ((outputs, tokens), (outputs[:, :-1], tokens[:, 1:])):
        loss = F.cross_entropy(seen.reshape(-1, 5), wanted.reshape(-1))
        counted = wanted[wanted != IGNORED]
        shares = [float((counted == c).double().mean()) for c in range(5)]
        found = measured(lambda *_, loss=loss: loss, outputs, tokens)["loss"]
        assert found.value == pytest.approx(-sum(p * math.log(p) for p in shares if p), rel=1e-9)


def test_the_commonest_class_and_the_number_of_classes():
    found = measured(F.cross_entropy, torch.zeros(9, 4, dtype=torch.float64), LABELS)
    assert found["accuracy"].value == pytest.approx(4 / 9)
    assert found["num_classes"].value == 4


def test_outputs_of_one_number_and_targets_without_that_dimension_are_compared():
    found = measured(lambda z, y: F.mse_loss(z[:, 0], y), torch.ones(9, 1, dtype=torch.float64), REALS[:, 0])
    assert found["loss"].value == pytest.approx(float(REALS[:, 0].var(unbiased=False)))


def test_another_loss_has_no_chance_level_and_says_so():
    found = measured(lambda z, y: 3.7 * F.cross_entropy(z, y), torch.randn(9, 3, generator=GENERATOR), LABELS)
    assert found["loss"].missing == "the loss is none that can be told from its value"
    assert found["accuracy"].value == pytest.approx(4 / 9)


def test_a_regression_has_no_classes():
    found = measured(F.mse_loss, REALS + 1, REALS)
    assert found["accuracy"].missing
    assert found["num_classes"].missing


def test_a_batch_whose_labels_are_all_ignored_has_none():
    nothing = torch.full((9,), IGNORED)
    found = measured(lambda *_: torch.tensor(1.0), torch.zeros(9, 3), nothing)
    assert all(reading.missing for reading in found.values())


def test_without_outputs_it_is_missing():
    assert {reading.missing for reading in Chance().measure(FakeSnapshot()).values()} == {"no train"}
