"""NaN and Inf put in at known places are found there, and healthy models have none."""

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.first_bad import FirstBad


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def measured(model, x=None):
    x = torch.randn(8, 4) if x is None else x
    reading = tv.measure(
        model, loss=nn.functional.cross_entropy, batch=(x, torch.arange(8) % 3), what=["first_bad"]
    )["first_bad"]  # fmt: skip
    return dict(zip(reading.keys, reading.value.tolist(), strict=True)), reading.details


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_healthy_models_have_none(case):
    built = case.build()
    reading = tv.measure(built.model, loss=built.loss, batch=built.batches, what=["first_bad"])["first_bad"]
    assert reading.keys == ("weights", "layers", "activations", "gradients")
    assert reading.value.tolist() == [0, 0, 0, 0]
    assert reading.details == {}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_weight_is_named_with_the_layers_after_it(bad):
    model = net()
    with torch.no_grad():
        model[2].weight[1, 2] = bad
    counts, details = measured(model)
    assert counts["weights"] == 1
    assert counts["layers"] == 2  # its own, and the one after it
    assert counts["activations"] == 1
    assert counts["gradients"] > 0
    assert details["first_weights"] == "2.weight"
    assert details["first_layers"] == "2"
    assert details["first_activations"] == "3"
    assert details["step"] == 0


def test_an_overflow_in_the_forward_pass_has_healthy_weights():
    model = net()
    with torch.no_grad():
        model[2].weight.fill_(3e38)
        model[2].bias.fill_(3e38)
    counts, details = measured(model)
    assert counts["weights"] == 0
    assert details["first_layers"] == "2"
    assert "first_weights" not in details


def test_bad_inputs_reach_the_first_layer():
    x = torch.randn(8, 4)
    x[3, 1] = torch.nan
    counts, details = measured(net(), x)
    assert counts["weights"] == 0
    assert (counts["layers"], details["first_layers"]) == (3, "0")


class BadBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.inf


class Overflows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(BadBackward.apply(torch.relu(self.first(x))))


def test_a_gradient_that_overflows_alone_is_named():
    counts, details = measured(Overflows())
    assert (counts["weights"], counts["layers"], counts["activations"]) == (0, 0, 0)
    assert counts["gradients"] == 2
    assert details["first_gradients"] == "first.weight"


def test_the_first_step_is_remembered():
    diagnostic, good, bad = FirstBad(), {"w": torch.ones(2)}, {"w": torch.tensor([torch.nan])}
    steps = [diagnostic.measure(FakeSnapshot(step=s, parameters=p)).details.get("step")
             for s, p in ((0, good), (10, bad), (20, good), (30, bad))]  # fmt: skip
    assert steps == [None, 10, 10, 10]


def test_what_the_model_does_not_have_is_left_out_with_its_reason():
    reading = FirstBad().measure(FakeSnapshot(parameters={"w": torch.ones(2)}, layer_outputs={}))
    assert reading.keys == ("weights",)
    assert reading.details["left_out"] == {
        "layers": "none was seen in the forward pass", "activations": "no activations", "gradients": "no gradient",
    }  # fmt: skip
