"""Dead and dormant units against loops over units, and on a network whose dead units are known."""

import pytest
import torch
from fake_snapshot import FakeSnapshot
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.dead_units import DeadUnits, DormantUnits, unit_sizes


def layers(seed=0):
    generator = torch.Generator().manual_seed(seed)
    linear = torch.randn(9, 7, generator=generator).relu()
    linear[:, [1, 4]] = 0
    linear[:, 2] *= 1e-3
    image = torch.randn(9, 5, 3, 3, generator=generator).relu()
    image[:, 0] = 0
    tokens = torch.randn(9, 4, 6, generator=generator).relu()
    tokens[..., 3] = 0
    return {"linear": linear, "image": image, "tokens": tokens}, {"linear": -1, "image": 1, "tokens": -1}


def snapshot_of(activations, axes):
    return FakeSnapshot(activations=activations, unit_axes=axes)


def by_loops(tensor, axis, tau):
    sizes = [float(tensor.double().select(axis, j).abs().mean()) for j in range(tensor.shape[axis])]
    mean = sum(sizes) / len(sizes)
    dead = sum(bool((tensor.select(axis, j) == 0).all()) for j in range(tensor.shape[axis]))
    return dead / len(sizes), sum(s <= tau * mean for s in sizes) / len(sizes)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("tau", [0.0, 0.025, 0.7])
def test_shares_equal_a_count_by_hand(seed, tau):
    activations, axes = layers(seed)
    expected = [by_loops(t, axes[name], tau) for name, t in activations.items()]
    dead, dormant = (d.measure(snapshot_of(activations, axes)) for d in (DeadUnits(), DormantUnits(tau=tau)))
    assert dead.value.tolist() == pytest.approx([d for d, _ in expected])
    assert dormant.value.tolist() == pytest.approx([s for _, s in expected])
    assert dead.keys == dormant.keys == ("linear", "image", "tokens")
    assert dead.details["all_layers"] == pytest.approx((2 + 1 + 1) / (7 + 5 + 6))


def test_dormant_at_tau_zero_is_dead():
    given = snapshot_of(*layers())
    assert DormantUnits(tau=0.0).measure(given).value.tolist() == DeadUnits().measure(given).value.tolist()


def test_scaling_and_the_order_of_samples_and_units_change_nothing():
    h = layers()[0]["linear"]
    moved = 1e-4 * h[torch.randperm(9)][:, torch.randperm(7)]
    for diagnostic in (DeadUnits(), DormantUnits()):
        one, other = (diagnostic.measure(snapshot_of({"a": x}, {"a": -1})).value.tolist() for x in (h, moved))
        assert one == other


def test_negative_outputs_count_as_responses():
    h = torch.tensor([[-1.0, 0.0], [-1.0, 0.0]])
    assert unit_sizes(h, -1).tolist() == [1.0, 0.0]


def test_a_dead_layer_is_dead_and_dormant():
    given = snapshot_of({"a": torch.zeros(4, 3)}, {"a": -1})
    assert DeadUnits().measure(given).value.tolist() == DormantUnits().measure(given).value.tolist() == [1.0]


class Net(nn.Module):
    """Units 0 and 2 of four channels, and 1 of three features, can never fire."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), nn.Linear(3, 2)
        with torch.no_grad():
            self.conv.bias[[0, 2]] = -1e4
            self.fc.bias[1] = -1e4
            self.fc.bias[[0, 2]] = 1e2

    def forward(self, x):
        return self.out(torch.relu(self.fc(torch.relu(self.conv(x)).mean((2, 3)))))


def test_a_network_with_known_dead_units():
    torch.manual_seed(0)
    batch = (torch.rand(6, 1, 5, 5) + 1, torch.arange(6) % 2)
    model = Net()
    with torch.no_grad():
        model.conv.bias[[1, 3]] = 1e2
    found = tv.measure(model, loss=nn.functional.cross_entropy, batch=batch, what=["units"])
    assert dict(zip(found["units.dead"].keys, found["units.dead"].value, strict=True)) == {
        "conv.relu": 0.5, "fc.relu": pytest.approx(1 / 3),
    }  # fmt: skip
    assert found["units.dormant"].value.tolist() == found["units.dead"].value.tolist()


def test_a_layer_with_nan_is_left_out_and_named():
    activations, axes = layers()
    activations["linear"][0, 0] = torch.nan
    reading = DeadUnits().measure(snapshot_of(activations, axes))
    assert reading.keys == ("image", "tokens")
    assert reading.details["left_out"] == {"linear": "the activations hold NaN or Inf"}


@pytest.mark.parametrize(
    ("activations", "reason"),
    [({}, "no non-linearity was found"), ({"a": torch.full((3, 2), torch.inf)}, "a: the activations hold NaN or Inf")],
)
def test_missing_with_the_reason(activations, reason):
    for diagnostic in (DeadUnits(), DormantUnits()):
        with pytest.raises(Missing, match=reason):
            diagnostic.measure(snapshot_of(activations, {"a": -1}))


@pytest.mark.parametrize("tau", [-0.1, 1.0, float("nan")])
def test_tau_out_of_range_is_refused(tau):
    with pytest.raises(ValueError, match="expected 0 <= tau < 1"):
        DormantUnits(tau=tau)
