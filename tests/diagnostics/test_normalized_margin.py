"""Margins over products of spectral norms, against numpy, and what they promise of ReLU chains."""

import numpy as np
import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot, evaluation
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.normalized_margin import NormalizedMargin


@pytest.mark.parametrize("case", [c for c in CASES if c.is_classifier], ids=lambda c: c.name)
def test_numbers_equal_loops_and_numpys_norms(case):
    built = case.build()
    what = ["margin.normalized", "margin"]
    found = tv.measure(built.model, loss=built.loss, batch=built.batches, what=what)
    matrices = [p.detach().numpy() for p in built.model.parameters() if p.requires_grad and p.ndim > 1]
    product = np.prod([np.linalg.norm(w.reshape(len(w), -1), 2) for w in matrices])
    x, y = built.batch
    with torch.no_grad():
        z = built.model.eval()(x).tolist()
    margins = [row[c] - max(v for k, v in enumerate(row) if k != c) for row, c in zip(z, y.tolist(), strict=True)]
    assert found["margin.normalized.mean"].value == pytest.approx(np.mean(margins) / product, rel=1e-6)
    assert found["margin.normalized.lowest"].value == pytest.approx(min(margins) / product, rel=1e-6)
    assert found["margin.normalized.lowest"].details["sample"] == int(np.argmin(margins))
    assert found["margin.normalized.mean"].error == pytest.approx(found["margin.mean"].error / product, rel=1e-6)


def chain(seed=0):
    torch.manual_seed(seed)
    first, second, last = (nn.Linear(m, n, bias=False) for m, n in ((6, 20), (20, 20), (20, 3)))
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last).double()
    x = torch.randn(40, 6, dtype=torch.float64)
    return model, x, model(x).argmax(1)


def measured(model, x, y):
    loss = nn.functional.cross_entropy
    return tv.measure(model, loss=loss, batch=(x, y), what=["margin.normalized"])["margin.normalized.lowest"]


def test_scaling_any_layer_of_a_chain_changes_nothing():
    model, x, y = chain()
    before = measured(model, x, y)
    with torch.no_grad():
        model[0].weight.mul_(7.0)
        model[2].weight.mul_(0.01)
    assert measured(model, x, y).value == pytest.approx(before.value, rel=1e-9)


def test_no_input_within_the_bound_of_a_chain_is_classified_otherwise():
    model, x, y = chain()
    with torch.no_grad():
        radius = measured(model, x, y).value / 2**0.5
        z = model(x)
    assert radius > 0
    leaf = x.clone().requires_grad_()
    own = z.argmax(1)
    lead = model(leaf).gather(1, own[:, None]).sum() - model(leaf).scatter(1, own[:, None], -1e9).max(1).values.sum()
    (uphill,) = torch.autograd.grad(lead, leaf)
    moves = [-uphill] + [torch.randn(40, 6, dtype=torch.float64) for _ in range(20)]
    for move in moves:
        moved = x + radius * move / move.norm(dim=1, keepdim=True)
        assert torch.equal(model(moved).argmax(1), own)


def test_missing_with_the_reason():
    outputs, y = torch.eye(3), torch.arange(3)
    train = evaluation(0.0, outputs, y)
    for parameters, reason in (
        ({"b": torch.ones(3)}, "no weight matrix"),
        ({"w": torch.zeros(3, 3), "v": torch.ones(3, 3)}, "w: it is zero"),
        ({"w": torch.full((3, 3), torch.nan)}, "w: it holds NaN"),
        ({f"w{i}": 1e-140 * torch.eye(3, dtype=torch.float64) for i in range(2)}, "is no number"),
    ):
        with pytest.raises(Missing, match=reason):
            NormalizedMargin().measure(FakeSnapshot(train=train, parameters=parameters))
    with pytest.raises(Missing, match="NaN or Inf"):
        NormalizedMargin().measure(
            FakeSnapshot(train=evaluation(0.0, torch.inf * torch.ones(3, 3), y), parameters={"w": torch.eye(3)})
        )
    with pytest.raises(Missing, match="not class labels"):
        NormalizedMargin().measure(
            FakeSnapshot(train=evaluation(0.0, outputs, torch.randn(3)), parameters={"w": torch.eye(3)})
        )
