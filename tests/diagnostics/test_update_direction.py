"""Angles against arccos, decay against optimisers whose step is nothing but decay."""

import math

import pytest
import torch
from cases import CASES
from fake_snapshot import FakeSnapshot, with_steps

import trainvitals as tv
from trainvitals.diagnostics.base import Missing, OptimizerView, ParameterGroup
from trainvitals.diagnostics.update_direction import DecayShare, UpdateAngle, UpdateRadial


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(before, update, **attributes):
    now = {name: before[name] + update[name] for name in before}
    return with_steps({}, update, parameters=now, **attributes)


def optimizer(kind="SGD", names=("w",), **options):
    return OptimizerView(kind, (ParameterGroup(options, names),), {})


def test_angle_and_radial_share_equal_their_definitions():
    before = {"w": normal(4, 3), "b": normal(5, seed=1)}
    update = {"w": normal(4, 3, seed=2), "b": 3 * normal(5, seed=3)}
    snapshot = step(before, update)
    angle, radial = UpdateAngle().measure(snapshot), UpdateRadial().measure(snapshot)
    assert angle.keys == radial.keys == ("w", "b")
    for index, name in enumerate(before):
        a, d = before[name].reshape(-1).tolist(), update[name].reshape(-1).tolist()
        b = [x + y for x, y in zip(a, d, strict=True)]

        def cosine(u, v):
            return sum(x * y for x, y in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v)

        assert float(angle.value[index]) == pytest.approx(math.acos(cosine(a, b)), rel=1e-9)
        assert float(radial.value[index]) == pytest.approx(abs(cosine(a, d)), rel=1e-9)
        assert float(radial.details["cosine"][index]) == pytest.approx(cosine(a, d), rel=1e-9)


@pytest.mark.parametrize("degrees", [1e-6, 30.0, 90.0, 179.0, 180.0])
def test_an_angle_is_found_at_any_size_and_does_not_depend_on_the_lengths(degrees):
    angle = math.radians(degrees)
    for length in (0.01, 1.0, 50.0):
        before = torch.tensor([1.0, 0.0], dtype=torch.float64)
        after = length * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        reading = UpdateAngle().measure(step({"w": before}, {"w": after - before}))
        # a small turn beside a large stretch is found to the rounding of the stretch
        assert float(reading.value) == pytest.approx(angle, rel=1e-7, abs=2e-8 if length != 1 else 0)


def test_a_stretch_is_radial_and_a_turn_is_not():
    before = {"out": normal(6), "in": normal(6, seed=1), "across": torch.tensor([1.0, 0.0])}
    update = {"out": 0.1 * before["out"], "in": -0.3 * before["in"], "across": torch.tensor([0.0, 0.2])}
    reading = UpdateRadial().measure(step(before, update))
    assert reading.value.tolist() == pytest.approx([1, 1, 0], abs=1e-12)
    assert reading.details["cosine"].tolist() == pytest.approx([1, -1, 0], abs=1e-12)
    angles = UpdateAngle().measure(step(before, update)).value.tolist()
    assert angles == pytest.approx([0, 0, math.atan(0.2)], abs=1e-7)


def test_what_was_zero_or_did_not_move_is_named():
    before = {"w": torch.ones(2), "zero": torch.zeros(2), "still": torch.ones(2), "nan": torch.ones(2)}
    update = {"w": torch.ones(2), "zero": torch.ones(2), "still": torch.zeros(2), "nan": torch.full((2,), torch.nan)}
    angle, radial = UpdateAngle().measure(step(before, update)), UpdateRadial().measure(step(before, update))
    assert angle.keys == ("w", "still")
    assert angle.value.tolist() == pytest.approx([0, 0], abs=1e-7)
    assert radial.keys == ("w",)
    assert radial.details["left_out"] == {
        "zero": "it was 0 before the step", "still": "the step did not change it", "nan": "it holds NaN or Inf",
    }  # fmt: skip


@pytest.mark.parametrize("diagnostic", [UpdateAngle(), UpdateRadial(), DecayShare()], ids=lambda d: d.name)
def test_missing_without_a_step(diagnostic):
    parameters = {"w": torch.ones(2)}
    view = optimizer(lr=0.1, weight_decay=0.1)
    with pytest.raises(Missing, match="no trajectory"):
        diagnostic.measure(FakeSnapshot(parameters=parameters, optimizer=view))


@pytest.mark.parametrize("diagnostic", [UpdateAngle(), UpdateRadial()], ids=lambda d: d.name)
def test_missing_when_every_tensor_was_zero(diagnostic):
    with pytest.raises(Missing, match="w: it was 0 before the step"):
        diagnostic.measure(step({"w": torch.zeros(2)}, {"w": torch.ones(2)}))


def test_decay_share_and_cosine_equal_their_definitions():
    before, update = {"w": normal(7), "free": normal(3, seed=5)}, {"w": normal(7, seed=1), "free": normal(3, seed=6)}
    view = OptimizerView("AdamW", (ParameterGroup({"lr": 0.1, "weight_decay": 0.3}, ("w",)),
                                   ParameterGroup({"lr": 0.1, "weight_decay": 0.0}, ("free",))), {})  # fmt: skip
    readings = DecayShare().measure(step(before, update, optimizer=view))
    decay = -0.1 * 0.3 * before["w"]
    assert readings["share"].keys == readings["cosine"].keys == ("w",)
    assert float(readings["share"].value) == pytest.approx(float(decay.norm() / update["w"].norm()), rel=1e-12)
    cosine = float(decay @ update["w"] / decay.norm() / update["w"].norm())
    assert float(readings["cosine"].value) == pytest.approx(cosine, rel=1e-12)
    assert readings["share"].details["decay"] == "decoupled"


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD], ids=["AdamW", "SGD"])
def test_a_step_without_a_gradient_is_all_decay(tmp_path, make):
    """The loss multiplies the model by zero: only decay moves the weights."""
    built = CASES[0].build()
    settings = {"lr": 0.1, "weight_decay": 0.5}
    opt = make(built.model.parameters(), **settings)
    x, y = built.batch
    with tv.watch(built.model, opt, loss=built.loss, train=(x, y), store=tmp_path,
                  probes=["update.decay_share", "update.radial"], every=1) as run:  # fmt: skip
        (0.0 * built.model(x).sum()).backward()
        opt.step()
    latest = {name: reading for name, (_, reading) in tv.open_run(run.path).latest().items()}
    assert latest["update.decay_share.share"].value.tolist() == pytest.approx([1] * 6, rel=1e-9)
    assert latest["update.decay_share.cosine"].value.tolist() == pytest.approx([1] * 6, rel=1e-9)
    assert latest["update.radial"].value.tolist() == pytest.approx([1] * 6, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("SGD", {}, "L2 penalty, exact"),
        ("SGD", {"momentum": 0.9}, "L2 penalty, spread over later steps by momentum"),
        ("Adam", {}, "L2 penalty inside Adam: rescaled with the gradient"),
        ("Adam", {"decoupled_weight_decay": True}, "decoupled"),
        ("Muon", {}, "decoupled"),
    ],
)
def test_details_say_how_the_optimiser_decays(kind, options, words):
    view = optimizer(kind, lr=0.1, weight_decay=0.1, **options)
    readings = DecayShare().measure(step({"w": torch.ones(2)}, {"w": torch.ones(2)}, optimizer=view))
    assert readings["share"].details["decay"] == words


def test_missing_without_decay_and_without_an_optimiser():
    with pytest.raises(Missing, match="no weight decay"):
        DecayShare().measure(step({"w": torch.ones(2)}, {"w": torch.ones(2)}, optimizer=optimizer(lr=0.1)))
    with pytest.raises(Missing, match="no optimizer"):
        DecayShare().measure(step({"w": torch.ones(2)}, {"w": torch.ones(2)}))
    view = optimizer(lr=0.1, weight_decay=0.1)
    readings = DecayShare().measure(step({"w": torch.ones(2)}, {"w": torch.zeros(2)}, optimizer=view))
    assert all("w: the step did not change it" in reading.missing for reading in readings.values())
