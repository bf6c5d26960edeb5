"""The gap, the two losses and accuracies, and how far the held-out loss is above its best."""

import math

import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.generalization_gap import (
    GeneralizationGap,
    HeldoutAccuracy,
    HeldoutLoss,
    Overtraining,
    TrainAccuracy,
    TrainLoss,
    share_error,
)


def classified(loss, num_right, num_samples, num_classes=3):
    """An evaluation in which the first `num_right` of `num_samples` are right."""
    targets = torch.arange(num_samples) % num_classes
    guesses = torch.where(torch.arange(num_samples) < num_right, targets, (targets + 1) % num_classes)
    return evaluation(loss, torch.nn.functional.one_hot(guesses, num_classes).double(), targets)


@pytest.fixture
def snapshot():
    return FakeSnapshot(train=classified(0.5, 9, 10), heldout=classified(0.8, 12, 20))


def test_gap_is_heldout_minus_train(snapshot):
    readings = GeneralizationGap().measure(snapshot)
    assert readings["loss"].value == pytest.approx(0.3)
    assert readings["loss"].error is None
    assert readings["accuracy"].value == pytest.approx(0.6 - 0.9)
    assert readings["accuracy"].error == pytest.approx(math.hypot(share_error(0.9, 10), share_error(0.6, 20)))
    assert readings["accuracy"].details == pytest.approx({"train": 0.9, "heldout": 0.6})


def test_losses_and_accuracies(snapshot):
    assert TrainLoss().measure(snapshot).value == 0.5
    assert HeldoutLoss().measure(snapshot).value == 0.8
    assert TrainAccuracy().measure(snapshot).value == pytest.approx(0.9)
    assert HeldoutAccuracy().measure(snapshot).value == pytest.approx(0.6)
    assert HeldoutAccuracy().measure(snapshot).details == {"num_samples": 20}


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_the_error_of_a_share_covers_it(share):
    drawn = torch.rand(2000, 200, generator=torch.Generator().manual_seed(0)) < share
    found = drawn.double().mean(1)
    inside = [abs(float(a) - share) <= 2 * share_error(float(a), 200) for a in found]
    assert sum(inside) / len(inside) >= 0.9


def test_the_error_of_a_share_is_the_binomial_one_for_many_samples():
    assert share_error(0.3, 10_000) == pytest.approx(math.sqrt(0.3 * 0.7 / 10_000), rel=1e-3)


def test_regression_has_a_gap_of_the_loss_alone():
    both = evaluation(0.5, torch.zeros(6, 2), torch.zeros(6, 2))
    snapshot = FakeSnapshot(train=both, heldout=both)
    readings = GeneralizationGap().measure(snapshot)
    assert readings["loss"].value == 0.0
    assert "targets are not class labels" in readings["accuracy"].missing
    for diagnostic in (TrainAccuracy(), HeldoutAccuracy()):
        with pytest.raises(Missing, match="targets are not class labels"):
            diagnostic.measure(snapshot)


def test_without_a_heldout_probe():
    snapshot = FakeSnapshot(train=classified(0.5, 9, 10))
    readings = GeneralizationGap().measure(snapshot)
    assert readings["loss"].missing == readings["accuracy"].missing == "no heldout"
    for diagnostic in (HeldoutLoss(), HeldoutAccuracy(), Overtraining()):
        with pytest.raises(Missing, match="no heldout"):
            diagnostic.measure(snapshot)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_recorded_as_such(loss):
    snapshot = FakeSnapshot(train=evaluation(loss), heldout=evaluation(loss))
    for diagnostic in (TrainLoss(), HeldoutLoss(), Overtraining()):
        assert repr(diagnostic.measure(snapshot).value) == repr(loss)
    assert math.isnan(GeneralizationGap().measure(snapshot)["loss"].value)


def watched(losses):
    diagnostic = Overtraining()
    for step, loss in enumerate(losses):
        yield diagnostic.measure(FakeSnapshot(heldout=evaluation(loss), step=10 * step))


def test_overtraining_is_against_the_best_so_far():
    readings = list(watched([2.0, 1.0, 1.5, 0.5, 2.0]))
    assert [r.value for r in readings] == [1.0, 1.0, 1.5, 1.0, 4.0]
    assert [r.details["best_step"] for r in readings] == [0, 10, 10, 30, 30]
    assert [r.details["best_loss"] for r in readings] == [2.0, 1.0, 1.0, 0.5, 0.5]


def test_overtraining_never_takes_nan_or_inf_for_the_best():
    values = [r.value for r in watched([math.nan, math.inf, 2.0, math.nan, 3.0])]
    assert math.isnan(values[0])
    assert values[1] == math.inf
    assert values[2] == 1.0
    assert math.isnan(values[3])
    assert values[4] == 1.5


@pytest.mark.parametrize("losses", [[0.0], [-1.0], [1.0, -1.0], [-1.0, 1.0], [0.0, 1.0]])
def test_overtraining_needs_positive_losses(losses):
    with pytest.raises(Missing, match="needs positive losses"):
        list(watched(losses))


def test_runs_do_not_share_their_best():
    assert next(watched([1.0])).value == 1.0
    assert next(watched([5.0])).value == 1.0
