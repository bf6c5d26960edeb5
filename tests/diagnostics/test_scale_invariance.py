"""Scale invariance on models where it is known, and the effective learning rate against the turn of a real step."""

import math

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.base import OptimizerView, ParameterGroup
from trainvitals.diagnostics.scale_invariance import EffectiveLearningRate, ScaleInvariance

BY_NAME = {case.name: case for case in CASES}


class Reshaped(nn.Module):
    """A linear layer, something in between, and the given normalisation after it."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8, bias=False), norm, nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.relu(self.norm(3 * self.first(x))))


def normalised(norm, seed=0):
    torch.manual_seed(seed)
    return Reshaped(norm).double()


def batch(num=24, width=6, classes=3):
    x = torch.randn(num, width, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return x, torch.arange(num) % classes


def measured(model, data, what="scale_invariance", options=None, **arguments):
    arguments = {"loss": nn.functional.cross_entropy, **arguments}
    return tv.measure(model, batch=data, what=[what], options={what: options or {}}, **arguments)[what]


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(8, eps=1e-12), nn.BatchNorm1d(8, eps=1e-12), nn.RMSNorm(8, eps=1e-12),
             nn.GroupNorm(2, 8, eps=1e-12)], ids=lambda norm: type(norm).__name__,
)  # fmt: skip
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_weight_before_a_normalisation_is_invariant_and_the_others_are_not(norm, mode):
    reading = measured(normalised(norm), batch(), mode=mode)
    assert reading.keys == ("first.weight", "last.weight")
    assert reading.value[0] < 1e-9
    assert reading.value[1] > 0.4


def test_weight_normalisation_makes_its_direction_invariant_and_not_its_length():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3)).double()
    reading = measured(model, batch())
    changes = dict(zip(reading.keys, reading.value.tolist(), strict=True))
    assert changes["0.parametrizations.weight.original1"] < 1e-12  # v in g·v/‖v‖
    assert changes["0.parametrizations.weight.original0"] > 0.05
    assert changes["2.weight"] > 0.05


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_changes_equal_those_of_a_model_scaled_by_hand(case):
    built = case.build()
    model, (x, _) = built.model.eval(), built.batches[0]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    expected = {}
    with torch.no_grad():
        before = model(x)
        for name, p in model.named_parameters():
            if not p.requires_grad or p.ndim < 2:
                continue
            found = []
            for factor in (0.5, 2.0):
                p.mul_(factor)
                found.append(float((model(x) - before).norm() / before.norm()))
                p.div_(factor)
            expected[name] = max(found)
    reading = measured(case.build().model, built.batches, loss=built.loss)
    assert reading.keys == tuple(expected)
    assert reading.value.tolist() == pytest.approx(list(expected.values()), rel=1e-9, abs=1e-12)


def test_known_changes_of_a_linear_model():
    """Doubling the weight of a bias-free linear model changes the outputs by their own size."""
    model = nn.Linear(6, 3, bias=False).double()
    assert measured(model, batch()).value.tolist() == pytest.approx([1.0], rel=1e-12)
    assert measured(model, batch(), options={"factors": (3.0,)}).value.tolist() == pytest.approx([2.0], rel=1e-12)


class Gated(nn.Module):
    """A branch that a gate of zero switches off: nothing done to its weight changes the outputs."""

    def __init__(self):
        super().__init__()
        self.branch, self.fc, self.gate = nn.Linear(6, 6), nn.Linear(6, 3), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.fc(x + self.gate * self.branch(x))


def test_a_weight_that_the_outputs_do_not_see_is_named():
    reading = measured(Gated().double(), batch())
    assert reading.keys == ("fc.weight",)
    assert reading.details["left_out"] == {"branch.weight": "the outputs do not depend on it"}


def test_a_weight_of_zero_is_named():
    model = normalised(nn.LayerNorm(8))
    with torch.no_grad():
        model.last.weight.zero_()  # the outputs are its bias
    assert measured(model, batch()).missing == "first.weight: the outputs do not depend on it; last.weight: it is zero"


def test_the_model_and_its_buffers_stay_as_they_were():
    model = normalised(nn.BatchNorm1d(8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured(model, batch())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_half_precision_weights_are_scaled_in_float32():
    model = normalised(nn.LayerNorm(8, eps=1e-6)).bfloat16()
    x, y = batch()
    reading = measured(model, (x.bfloat16(), y))
    assert reading.value[0] < 1e-4


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(x), x


class OfOneSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(x.reshape(24, 6))


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        (Pair(), {"loss": lambda outputs, y: nn.functional.cross_entropy(outputs[0], y)},
         "are a tuple, not one tensor"),
        (nn.Linear(6, 3), {"loss": None, "forward": lambda m, b: (m(b[0]), nn.functional.cross_entropy(m(b[0]), b[1]))},
         "called through forward="),
        (nn.LayerNorm(6), {}, "no weight matrix"),
    ],
    ids=["tuple", "forward", "vectors"],
)  # fmt: skip
@pytest.mark.parametrize("what", ["scale_invariance", "effective_lr"])
def test_missing_with_the_reason(model, arguments, words, what):
    data = (batch()[0].float(), torch.arange(24) % 3)
    reading = measured(model, data, what, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), **arguments)
    assert words in reading.missing


def test_a_model_of_one_batch_size_does_not_run_on_fewer_samples():
    data = (batch()[0].float(), torch.arange(24) % 3)
    reading = measured(OfOneSize(), data, options={"num_samples": 5})
    assert "does not run on 5 samples" in reading.missing


def test_outputs_of_zero_are_missing():
    model = nn.Sequential(nn.Linear(6, 3, bias=False), nn.Hardshrink(1e6))
    assert "zero everywhere" in measured(model, (batch()[0].float(), batch()[1])).missing


@pytest.mark.parametrize("options", [{"factors": ()}, {"num_samples": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match="expected at least one factor and one sample"):
        ScaleInvariance(**options)


def test_the_effective_rate_is_that_of_the_group():
    model = normalised(nn.LayerNorm(8))
    groups = [{"params": model.first.parameters(), "lr": 0.3}, {"params": model.last.parameters(), "lr": 0.1}]
    reading = measured(model, batch(), "effective_lr", optimizer=torch.optim.SGD(groups))
    assert reading.keys == ("first.weight",)
    assert reading.value.tolist() == pytest.approx([0.3 / float(model.first.weight.detach().square().sum())], rel=1e-12)


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_a_step_of_sgd_turns_the_weight_by_the_effective_rate(length):
    """tan(angle) = (η/‖W‖²)·‖gradient at length 1‖, whatever the length."""
    model = normalised(nn.LayerNorm(8, eps=1e-14))
    with torch.no_grad():
        model.first.weight.div_(model.first.weight.norm())
    x, y = batch()
    unit = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), model.first.weight)[0]
    with torch.no_grad():
        model.first.weight.mul_(length)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    rate = float(measured(model, (x, y), "effective_lr", optimizer=optimizer).value[0])
    before = model.first.weight.detach().clone()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    after = model.first.weight.detach()
    cosine = float((before * after).sum() / before.norm() / after.norm())
    assert math.tan(math.acos(cosine)) == pytest.approx(rate * float(unit.norm()), rel=1e-6)


def test_the_effective_rate_is_sgds_and_needs_an_invariant_weight():
    model = normalised(nn.LayerNorm(8))
    assert "no optimizer" in measured(model, batch(), "effective_lr").missing
    adam = measured(model, batch(), "effective_lr", optimizer=torch.optim.Adam(model.parameters()))
    assert "for Adam, update.angle" in adam.missing
    plain = nn.Linear(6, 3).double()
    reading = measured(plain, batch(), "effective_lr", optimizer=torch.optim.SGD(plain.parameters(), lr=0.1))
    assert "no weight that the optimiser trains is scale-invariant" in reading.missing


def test_what_is_invariant_is_found_once():
    built = BY_NAME["cnn_batchnorm"].build()
    calls = []

    def isolated_model():
        calls.append("copy")
        return built.model, None, [(*built.batch, 1.0)]

    snapshot = FakeSnapshot(
        optimizer=OptimizerView("SGD", (ParameterGroup({"lr": 0.1}, tuple(dict(built.model.named_parameters()))),), {}),
        parameters={name: p.detach() for name, p in built.model.named_parameters()},
        isolated_model=isolated_model, generator=lambda purpose: torch.Generator().manual_seed(0),
    )  # fmt: skip
    diagnostic = EffectiveLearningRate()
    one, other = diagnostic.measure(snapshot), diagnostic.measure(snapshot)
    assert calls == ["copy"]
    assert one.keys == other.keys == ("conv1.weight", "conv2.weight")
