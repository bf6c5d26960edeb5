"""Margins against a loop over samples and classes."""

import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.margin import Margin


def problem(N=20, C=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(N, C, generator=generator, dtype=torch.float64)
    return z, torch.randint(C, (N,), generator=generator)


def measured(z, y):
    return Margin().measure(FakeSnapshot(train=evaluation(0.0, z, y)))


@pytest.mark.parametrize("C", [2, 4])
def test_margins_equal_a_loop(C):
    z, y = problem(C=C)
    by_hand = [float(z[i, y[i]]) - max(float(z[i, k]) for k in range(C) if k != y[i]) for i in range(20)]
    found = measured(z, y)
    assert found["mean"].value == pytest.approx(sum(by_hand) / 20)
    assert found["mean"].error == pytest.approx(float(torch.tensor(by_hand).std()) / 20**0.5)
    assert found["lowest"].value == pytest.approx(min(by_hand))
    assert by_hand[found["lowest"].details["sample"]] == min(by_hand)


def test_the_lowest_is_above_zero_exactly_when_all_are_right():
    z, _ = problem()
    right = z.argmax(1)
    assert measured(z, right)["lowest"].value > 0
    right[3] = (right[3] + 1) % 4
    assert measured(z, right)["lowest"].value < 0


def test_shifting_a_samples_logits_changes_nothing_and_scaling_scales():
    z, y = problem()
    one, shifted, scaled = measured(z, y), measured(z + torch.randn(20, 1), y), measured(3 * z, y)
    for part in ("mean", "lowest"):
        assert shifted[part].value == pytest.approx(one[part].value)
        assert scaled[part].value == pytest.approx(3 * one[part].value)


def test_one_sample_has_no_standard_error():
    assert measured(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))["mean"].error is None


@pytest.mark.parametrize(
    ("outputs", "targets", "reason"),
    [
        (torch.randn(4, 2), torch.randn(4, 2), "not class labels"),
        (torch.full((4, 2), torch.inf), torch.zeros(4, dtype=torch.long), "NaN or Inf"),
        (torch.randn(4, 1), torch.zeros(4, dtype=torch.long), "not a classifier"),
    ],
    ids=["regression", "inf", "one output"],
)
def test_missing_with_the_reason(outputs, targets, reason):
    with pytest.raises(Missing, match=reason):
        measured(outputs, targets)
