"""False positives of a loss threshold against a search over thresholds."""

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.diagnostics.membership_errors import MembershipErrors


def by_hand(members, others, share):
    """The lowest threshold among the losses that finds enough members, and what it takes of the others."""
    t = min(t for t in members if sum(loss <= t for loss in members) >= share * len(members) - 1e-9)
    return t, sum(loss <= t for loss in others) / len(others)


def measured(members, others, **options):
    snapshot = FakeSnapshot(sample_losses=torch.tensor(members), heldout_sample_losses=torch.tensor(others))
    return MembershipErrors(**options).measure(snapshot)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("N", [1, 7, 20])
def test_rate_and_threshold_equal_a_search(share, N):
    generator = torch.Generator().manual_seed(N)
    members = torch.rand(N, generator=generator).tolist()
    others = (torch.rand(33, generator=generator) + 0.3).tolist()
    found = measured(members, others, true_positives=share)
    _, rate = by_hand(members, others, share)
    assert found.value == pytest.approx(rate)
    assert found.error == share_error(found.value, 33)
    assert found.details["true_positives"] >= share - 1e-9
    below = [loss for loss in members if loss < found.details["threshold"]]
    assert len(below) / N < share  # a smaller threshold finds too few


@pytest.mark.parametrize("case", CASES[:2], ids=lambda c: c.name)
def test_through_measure_with_the_losses_of_each_sample(case):
    built = case.build()
    found = tv.measure(
        built.model, loss=built.loss, batch=built.batches, heldout=built.heldout_batches, what=["mia.fpr"]
    )["mia.fpr"]
    model = built.model.eval()
    losses = [
        [float(built.loss(model(x[i : i + 1]), y[i : i + 1]).detach()) for i in range(len(x))]
        for x, y in (built.batch, built.heldout)
    ]
    assert found.value == pytest.approx(by_hand(*losses, 0.95)[1])


def test_no_monotone_change_of_the_loss_matters_and_separated_losses_have_no_false_positives():
    members, others = torch.rand(50).tolist(), torch.rand(40).tolist()
    one = measured(members, others)
    other = measured([m**3 for m in members], [o**3 for o in others])
    assert one.value == other.value
    assert measured([0.1] * 9, [0.2] * 9).value == 0.0
    assert measured([0.2] * 9, [0.1] * 9).value == 1.0


def test_missing_with_the_reason():
    with pytest.raises(Missing, match="NaN"):
        measured([0.0, float("nan")], [1.0])
    with pytest.raises(Missing, match="no heldout_sample_losses"):
        MembershipErrors().measure(FakeSnapshot(sample_losses=torch.ones(2)))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"options of 'mia\.fpr'"):
        MembershipErrors(true_positives=share)
