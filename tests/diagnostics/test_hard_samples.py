"""Error and gradient norms by sample against loops, one forward and backward pass a sample."""

import math

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot, evaluation, with_gradients
from naive import sample_gradients

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.hard_samples import El2n, Grand, by_sample


@pytest.mark.parametrize("case", [c for c in CASES if c.is_classifier], ids=lambda c: c.name)
def test_el2n_equals_the_definition(case):
    built = case.build()
    found = tv.measure(built.model, loss=built.loss, batch=built.batches, what=["el2n"])["el2n"]
    x, y = built.batch
    with torch.no_grad():
        p = [torch.softmax(built.model.eval()(x[i : i + 1]), 1)[0].tolist() for i in range(len(x))]
    expected = [math.sqrt(sum((p[i][c] - int(c == y[i])) ** 2 for c in range(len(p[i])))) for i in range(len(x))]
    assert found.value.tolist() == pytest.approx(expected, rel=1e-9)
    assert found.keys == tuple(str(i) for i in range(len(x)))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_grand_equals_one_backward_pass_a_sample(case):
    built = case.build()
    found = tv.measure(built.model, loss=built.loss, batch=built.batches, what=["grand"])["grand"]
    expected = sample_gradients(built.model.eval(), built.loss, *built.batch).norm(dim=1)
    assert found.value.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert found.keys == tuple(str(i) for i in range(len(expected)))


def test_a_right_and_sure_sample_has_no_error_and_a_wrong_one_the_most():
    outputs = torch.tensor([[1e3, 0.0], [0.0, 1e3], [0.0, 0.0]])
    found = El2n().measure(FakeSnapshot(train=evaluation(0.0, outputs, torch.zeros(3, dtype=torch.long))))
    assert found.value.tolist() == pytest.approx([0.0, math.sqrt(2), math.sqrt(0.5)])


def test_the_largest_are_named_and_averaged():
    values = torch.arange(30.0)[torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    details = by_sample(values).details
    assert [float(values[int(i)]) for i in details["largest"]] == [float(v) for v in range(29, 19, -1)]
    assert details["mean"] == pytest.approx(14.5)
    assert len(by_sample(values[:3]).details["largest"]) == 3


@pytest.mark.parametrize(
    ("outputs", "targets", "reason"),
    [
        (torch.randn(4, 2), torch.randn(4, 2), "not class labels"),
        (torch.randn(4, 2, 3), torch.zeros(4, 2, dtype=torch.long), "not a classifier"),
        (torch.full((4, 2), torch.nan), torch.zeros(4, dtype=torch.long), "NaN or Inf"),
        (torch.randn(4, 2), torch.full((4,), 5), "outside 0..1"),
    ],
    ids=["regression", "tokens", "nan", "range"],
)
def test_el2n_is_missing_with_the_reason(outputs, targets, reason):
    with pytest.raises(Missing, match=reason):
        El2n().measure(FakeSnapshot(train=evaluation(0.0, outputs, targets)))


def test_grand_is_missing_with_the_reason():
    with pytest.raises(Missing, match="1 samples have a gradient with NaN or Inf"):
        Grand().measure(with_gradients(torch.tensor([[1.0, 2.0], [torch.nan, 0.0]])))
    with pytest.raises(Missing, match="no gradient_sums"):
        Grand().measure(FakeSnapshot())
