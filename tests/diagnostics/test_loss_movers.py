"""Samples that move the loss against sorting by hand, on the case list and on two opposed groups."""

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from fake_snapshot import FakeSnapshot
from torch import nn

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.loss_movers import LossMovers
from trainvitals.probes.measure import take_readings
from trainvitals.probes.subject import make_subject


def losses_of(model, loss, x, y):
    return [float(loss(model(x[i : i + 1]), y[i : i + 1]).detach()) for i in range(len(x))]


def gradient_of(model, loss, x, y):
    parameters = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(loss(model(x), y), parameters, materialize_grads=True)
    return torch.cat([g.flatten() for g in parts])


def two_measurements(model, loss, batches, diagnostic, change):
    subject = make_subject(model, loss=loss, forward=None, train=batches, call="test")
    first = take_readings(subject, [diagnostic], step=3)
    with torch.no_grad():
        change()
    return first, take_readings(subject, [diagnostic], step=7)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_numbers_equal_sorting_by_hand(case):
    built = case.build()
    model, (x, y) = built.model.eval(), built.batch
    before = losses_of(model, built.loss, x, y)
    generator = torch.Generator().manual_seed(0)

    def change():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))

    diagnostic = LossMovers(fraction=3 / len(x))
    first, found = two_measurements(model, built.loss, built.batches, diagnostic, change)
    assert "first measurement" in first["loss.movers.share"].missing
    after = losses_of(model.eval(), built.loss, x, y)
    changes = [b - a for a, b in zip(before, after, strict=True)]
    order = sorted(range(len(x)), key=lambda i: changes[i])
    fell, rose = [i for i in order[:3] if changes[i] < 0], [i for i in order[::-1][:3] if changes[i] > 0]
    share, cosine = found["loss.movers.share"], found["loss.movers.cosine"]
    assert share.details["rose"].tolist() == rose
    assert share.details["fell"].tolist() == fell
    assert share.details["since"] == 3
    expected = sum(abs(changes[i]) for i in rose + fell) / sum(map(abs, changes))
    assert share.value == pytest.approx(expected, rel=1e-6)
    if not rose or not fell:
        assert "since the last measurement" in cosine.missing
        return
    one, other = (gradient_of(model, built.loss, x[group], y[group]) for group in (rose, fell))
    assert cosine.value == pytest.approx(float(F.cosine_similarity(one, other, dim=0)), abs=1e-6)


def test_two_groups_with_opposed_targets_carry_all_and_are_opposed():
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 0.0]] * 14 + [[1.0, 0.0]] * 3, dtype=torch.float64)
    y = torch.tensor([[1.0]] * 3 + [[0.0]] * 14 + [[-1.0]] * 3, dtype=torch.float64)
    _, found = two_measurements(
        model, F.mse_loss, (x, y), LossMovers(fraction=0.15), lambda: model.weight[0, 0].add_(0.1)
    )
    assert found["loss.movers.share"].value == pytest.approx(1.0)
    assert found["loss.movers.share"].details["even"] == pytest.approx(0.3)
    assert found["loss.movers.cosine"].value == pytest.approx(-1.0)
    assert sorted(found["loss.movers.share"].details["fell"].tolist()) == [0, 1, 2]


def test_changes_of_equal_size_give_the_even_share():
    diagnostic = LossMovers(fraction=0.25)
    signs = torch.tensor([1.0, -1.0] * 10)
    with pytest.raises(Missing, match="first measurement"):
        diagnostic.measure(FakeSnapshot(sample_losses=torch.full((20,), 3.0)))
    found = diagnostic.measure(FakeSnapshot(sample_losses=3.0 + signs, parameters={}))["share"]
    assert found.value == pytest.approx(found.details["even"]) == pytest.approx(0.5)


def test_missing_with_the_reason():
    diagnostic, flat = LossMovers(), FakeSnapshot(sample_losses=torch.ones(10), parameters={})
    for losses, reason in (
        (torch.ones(10), "first measurement"),
        (torch.ones(10), "no sample's loss has changed"),
        (torch.full((10,), torch.nan), "NaN or Inf"),
        (torch.ones(10), "first measurement"),  # nothing to compare with after a NaN
    ):
        with pytest.raises(Missing, match=reason):
            diagnostic.measure(FakeSnapshot(sample_losses=losses))
    risen = diagnostic.measure(FakeSnapshot(sample_losses=2 * torch.ones(10), parameters={}))
    assert "has fallen" in risen["cosine"].missing
    assert "has risen" in diagnostic.measure(flat)["cosine"].missing


def test_a_gradient_of_zero_has_no_direction():
    model = nn.Linear(1, 1, bias=False).double()
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    losses = iter([0.0, 1.0])  # moves with the pass, not with the weights

    def loss(z, y):
        return (z - y).square().mean()

    diagnostic = LossMovers(fraction=0.5)
    subject = make_subject(model, loss=loss, forward=None, train=(x, x), call="test")
    diagnostic._losses = torch.tensor([next(losses) - 5.0, next(losses) + 50.0], dtype=torch.float64)
    found = take_readings(subject, [diagnostic], step=1)
    assert "gradient of a group is zero" in found["loss.movers.cosine"].missing


def test_a_fraction_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"options of 'loss\.movers'"):
        LossMovers(fraction=0.6)
