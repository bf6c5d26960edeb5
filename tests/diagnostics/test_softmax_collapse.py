"""Losses of exactly 0 against arithmetic with numpy in the same precision."""

import math

import numpy as np
import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.softmax_collapse import SoftmaxCollapse, zero_share


def measured(outputs, targets):
    return SoftmaxCollapse().measure(FakeSnapshot(train=evaluation(0.0, outputs, targets))).value


def collapsed_by_hand(row, label, dtype):
    """log Σ exp(z − max) rounds to 0 exactly when the others are absorbed by the 1 of the largest."""
    z = np.array(row, dtype)
    rest = np.delete(np.exp(z - z.max()), int(z.argmax()))
    return int(z.argmax()) == label and dtype(1) + rest.sum(dtype=dtype) == dtype(1)


@pytest.mark.parametrize(("torch_dtype", "dtype"), [(torch.float32, np.float32), (torch.float64, np.float64)])
def test_the_share_is_where_the_other_classes_are_absorbed(torch_dtype, dtype):
    lead = -math.log(float(np.finfo(dtype).eps))
    rows = [[lead * (0.5 + 0.02 * i), 0.0, -1.0] for i in range(50)]
    z = torch.tensor(rows, dtype=torch_dtype)
    labels = torch.tensor([0] * 45 + [1] * 5)
    expected = [collapsed_by_hand(row, int(label), dtype) for row, label in zip(z.numpy(), labels, strict=True)]
    assert 5 < sum(expected) < 40
    # torch and numpy may round exp and log of the one row at the border differently
    assert measured(z, labels) == pytest.approx(sum(expected) / 50, abs=1.01 / 50)


def test_precision_decides():
    z = torch.tensor([[20.0, 0.0]])
    y = torch.tensor([0])
    assert measured(z, y) == 1.0
    assert measured(z.double(), y) == 0.0


def test_a_collapsed_sample_gives_no_gradient():
    z = torch.tensor([[30.0, 0.0], [3.0, 0.0]], requires_grad=True)
    losses = torch.nn.functional.cross_entropy(z, torch.tensor([0, 0]), reduction="none")
    assert zero_share(z.detach(), torch.tensor([0, 0])) == 0.5
    assert float(losses[0].detach()) == 0.0


def test_shifting_logits_changes_nothing_and_probabilities_are_taken_as_they_are():
    z, y = torch.tensor([[32.0, 0.0, 8.0], [1.0, 2.0, 4.0]]), torch.tensor([0, 2])
    assert measured(z + 64, y) == measured(z, y) == 0.5
    assert measured(torch.tensor([[1.0, 0.0], [0.75, 0.25]]), torch.tensor([0, 0])) == 0.5


@pytest.mark.parametrize(
    ("outputs", "targets", "reason"),
    [
        (torch.randn(4, 2), torch.randn(4, 2), "not class labels"),
        (torch.full((4, 2), torch.nan), torch.zeros(4, dtype=torch.long), "NaN or Inf"),
    ],
    ids=["regression", "nan"],
)
def test_missing_with_the_reason(outputs, targets, reason):
    with pytest.raises(Missing, match=reason):
        measured(outputs, targets)
