"""The cosine by hand, its sign on losses that ask for longer or shorter weights, and 0 before a normalisation."""

import math

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.naive_loss_minimization import NaiveLossMinimization


def measured(gradient, parameters):
    return NaiveLossMinimization().measure(FakeSnapshot(gradient=gradient, parameters=parameters))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cosines_equal_the_definition_on_models(case):
    built = case.build()
    x, y = built.batch
    torch.backends.mha.set_fastpath_enabled(False)  # its kernel has no gradient
    try:
        built.loss(built.model.eval()(x), y).backward()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    expected = {}
    for name, p in built.model.named_parameters():
        if p.requires_grad and p.any() and p.grad is not None:
            theta, g = p.detach().reshape(-1).tolist(), p.grad.reshape(-1).tolist()
            dot = sum(a * b for a, b in zip(theta, g, strict=True))
            expected[name] = -dot / math.hypot(*theta) / math.hypot(*g)
    model = case.build().model
    reading = tv.measure(model, loss=built.loss, batch=built.batches, what=["grad.nlm"])["grad.nlm"]
    found = dict(zip(reading.keys, reading.value.tolist(), strict=True))
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_separable_problem_asks_for_longer_weights():
    """Cross-entropy on right answers falls as the logits grow; squared error on too large outputs does not."""
    model = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    x, y = torch.eye(2, dtype=torch.float64), torch.arange(2)
    reading = tv.measure(model, loss=nn.functional.cross_entropy, batch=(x, y), what=["grad.nlm"])["grad.nlm"]
    assert reading.value.tolist() == pytest.approx([0.5**0.5], rel=1e-12)  # g = −s (I − off-diagonal ones)
    too_large = tv.measure(model, loss=nn.functional.mse_loss, batch=(x, x / 2), what=["grad.nlm"])["grad.nlm"]
    assert too_large.value.tolist() == pytest.approx([-1], rel=1e-12)


def test_a_weight_before_a_normalisation_has_a_gradient_across_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.LayerNorm(6, eps=1e-12), nn.Linear(6, 3)).double()
    x, y = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3
    reading = tv.measure(model, loss=nn.functional.cross_entropy, batch=(x, y), what=["grad.nlm"])["grad.nlm"]
    found = dict(zip(reading.keys, reading.value.tolist(), strict=True))
    assert found["0.weight"] == pytest.approx(0, abs=1e-9)
    assert abs(found["2.weight"]) > 1e-3


def test_lengths_do_not_matter():
    g, theta = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 0.2, 2.0])
    one, other = measured({"w": g}, {"w": theta}), measured({"w": 1e-6 * g}, {"w": 1e3 * theta})
    assert other.value.tolist() == pytest.approx(one.value.tolist(), rel=1e-6)


def test_what_has_no_cosine_is_named():
    one, zero, bad = torch.ones(2), torch.zeros(2), torch.tensor([1.0, torch.nan])
    gradient = {"w": -one, "b": one, "still": zero, "bad": bad}
    reading = measured(gradient, {"w": one, "b": zero, "still": one, "bad": one})
    assert reading.keys == ("w",)
    assert reading.value.tolist() == pytest.approx([1])
    assert reading.details["left_out"] == {
        "b": "it is zero", "still": "its gradient is zero", "bad": "it or its gradient holds NaN or Inf",
    }  # fmt: skip
    with pytest.raises(Missing, match="w: its gradient is zero"):
        measured({"w": zero}, {"w": one})
