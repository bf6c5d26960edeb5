"""Utilities against gates, finite differences and units that are silenced."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import CASES
from fake_snapshot import FakeSnapshot
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.unit_utility import UnitUtility
from trainvitals.probes.bystander import bystander
from trainvitals.probes.subject import make_subject
from trainvitals.probes.unit_utilities import unit_utilities

BY_NAME = {case.name: case for case in CASES}


class Gated(nn.Module):
    """A convolution and a linear layer, each with a gate for every unit behind its non-linearity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x, gates=(1.0, 1.0)):
        first, second = gates
        h = torch.relu(self.conv(x)) * (first if isinstance(first, float) else first[:, None, None])
        return self.head(F.gelu(self.fc(h.mean((2, 3)))) * second)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gated().double()
    return model, (draw(10, 1, 5, 5), torch.arange(10) % 3)


def utilities(model, batches, loss=F.cross_entropy):
    subject = make_subject(model, loss=loss, forward=None, train=batches, call="test")
    with bystander(subject.model):
        return unit_utilities(subject, subject.parameters())


def by_gates(model, x, y):
    gates = [torch.ones(4, dtype=torch.float64, requires_grad=True), torch.ones(5).double().requires_grad_()]
    found = torch.autograd.grad(F.cross_entropy(model(x, gates), y), gates)
    return {"conv.relu": -found[0], "fc.gelu": -found[1]}


def test_utilities_are_minus_the_gradients_of_gates():
    model, (x, y) = problem()
    for batches in [(x, y)], [(x[:6], y[:6]), (x[6:], y[6:])]:
        found = utilities(model, batches)
        assert found.keys() == {"conv.relu", "fc.gelu"}
        torch.testing.assert_close(found, by_gates(model, x, y), rtol=1e-9, atol=1e-12)


def test_utilities_are_slopes_of_the_loss_when_a_unit_is_turned_down():
    model, (x, y) = problem()
    found, step = utilities(model, [(x, y)])["fc.gelu"], 1e-4
    for unit in range(5):
        down, up = torch.ones(5).double(), torch.ones(5).double()
        down[unit] -= step
        up[unit] += step
        with torch.no_grad():
            rise = F.cross_entropy(model(x, (1.0, down)), y) - F.cross_entropy(model(x, (1.0, up)), y)
        slope = float(rise) / (2 * step)
        assert float(found[unit]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_where_the_loss_is_linear_in_a_unit_it_is_what_silencing_it_adds():
    model, (x, y) = problem()

    def linear(outputs, targets):
        return (outputs * (targets[:, None] - 1.0)).mean()

    found = utilities(model, [(x, y)], linear)["fc.gelu"]
    for unit in range(5):
        gate = torch.ones(5).double()
        gate[unit] = 0
        with torch.no_grad():
            rise = linear(model(x, (1.0, gate)), y) - linear(model(x), y)
        assert float(found[unit]) == pytest.approx(float(rise), rel=1e-9, abs=1e-12)


def test_activations_that_are_written_over_are_taken_as_they_were():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = F.gelu(self.fc(x))
            h.mul_(2)
            return self.head(h)

    model, (x, y) = InPlace().double(), (draw(8, 3), torch.arange(8) % 2)
    h = F.gelu(model.fc(x)).detach().requires_grad_()
    g = torch.autograd.grad(F.cross_entropy(model.head(h * 2), y), h)[0]
    torch.testing.assert_close(utilities(model, [(x, y)]), {"fc.gelu": -(g * h.detach()).sum(0)})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_readings_are_means_and_shares_of_the_utilities(case):
    built = case.build()
    found = utilities(built.model, built.batches, built.loss)
    readings = tv.measure(built.model, loss=built.loss, batch=built.batches, what=["units.utility"])
    kept = {name: u.abs().tolist() for name, u in found.items() if u is not None}
    mean, share = readings["units.utility.mean"], readings["units.utility.share"]
    assert mean.keys == share.keys == tuple(kept)
    assert mean.value.tolist() == pytest.approx([sum(u) / len(u) for u in kept.values()])
    assert share.value.tolist() == pytest.approx([sum(u) ** 2 / sum(v * v for v in u) / len(u) for u in kept.values()])
    assert mean.provenance["forward_passes"] == mean.provenance["backward_passes"] == len(built.batches)


def test_what_no_gradient_flows_to_is_left_out():
    built = BY_NAME["frozen"].build()
    readings = tv.measure(built.model, loss=built.loss, batch=built.batch, what=["units.utility"])
    assert "no gradient flows to it" in readings["units.utility.mean"].details["left_out"]["1"]
    assert readings["units.utility.mean"].keys == ("3",)


def test_scaling_a_rectified_unit_and_undoing_it_behind_changes_nothing():
    model, (x, y) = problem()
    before = utilities(model, [(x, y)])["conv.relu"]
    with torch.no_grad():
        model.conv.weight[1] *= 5
        model.conv.bias[1] *= 5
        model.fc.weight[:, 1] /= 5
    torch.testing.assert_close(utilities(model, [(x, y)])["conv.relu"], before)


def measured(**layers):
    return UnitUtility().measure(FakeSnapshot(unit_utilities=layers))


def test_shares_of_equal_and_of_single_units():
    found = measured(a=torch.tensor([1.0, -1.0, 1.0, 1.0]), b=torch.tensor([0.0, 0.0, -3.0, 0.0]))
    assert found["share"].value.tolist() == [1.0, 0.25]
    assert found["mean"].value.tolist() == [1.0, 0.75]


def test_missing_with_the_reason():
    assert measured()["mean"].missing == "no non-linearity was found in the forward pass"
    assert "no gradient flows to it" in measured(a=None)["mean"].missing
    assert "hold NaN or Inf" in measured(a=torch.tensor([math.nan]))["share"].missing
    dead = measured(a=torch.zeros(3))
    assert dead["mean"].value.tolist() == [0.0]
    assert dead["share"].missing == "a: silencing any one unit changes nothing"
    with pytest.raises(Missing):
        UnitUtility().measure(FakeSnapshot())
