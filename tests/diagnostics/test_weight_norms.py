"""Weight norms against sums written out, and what is left out where a start is zero or unknown."""

import math

import pytest
import torch
from fake_snapshot import FakeSnapshot, with_steps

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.weight_norms import UpdateRatio, WeightNorms


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def norm(tensor):
    return math.sqrt(sum(float(v) ** 2 for v in tensor.reshape(-1)))


@pytest.fixture
def start():
    return {"fc.weight": normal(3, 4), "fc.bias": torch.zeros(3, dtype=torch.float64), "gain": normal(1, seed=2)[0]}


@pytest.fixture
def now(start):
    return {name: p * 1.5 + 0.1 * (index + 1) for index, (name, p) in enumerate(start.items())}


def test_norms_growth_and_distance(now, start):
    readings = WeightNorms().measure(FakeSnapshot(parameters=now, initial_parameters=start))
    assert readings["value"].keys == readings["distance"].keys == tuple(now)
    assert readings["value"].value.tolist() == pytest.approx([norm(p) for p in now.values()], rel=1e-12)
    assert readings["distance"].value.tolist() == pytest.approx([norm(now[n] - start[n]) for n in now], rel=1e-12)
    expected = {n: norm(now[n]) / norm(start[n]) for n in ("fc.weight", "gain")}
    assert dict(zip(readings["growth"].keys, readings["growth"].value.tolist(), strict=True)) == pytest.approx(expected)


def test_a_tensor_that_started_at_zero_is_left_out_of_growth_and_named(now, start):
    growth = WeightNorms().measure(FakeSnapshot(parameters=now, initial_parameters=start))["growth"]
    assert "fc.bias" not in growth.keys
    assert growth.details["left_out"] == {"fc.bias": "its norm was 0 at the start"}
    only = {"fc.bias": start["fc.bias"]}
    readings = WeightNorms().measure(FakeSnapshot(parameters=only, initial_parameters=only))
    assert "norm was 0 at the start" in readings["growth"].missing
    assert readings["distance"].value.tolist() == [0.0]


def test_without_a_start_only_the_norm_exists(now):
    readings = WeightNorms().measure(FakeSnapshot(parameters=now))
    assert readings["value"].missing is None
    for part in ("growth", "distance", "outlier"):
        assert readings[part].missing == "no initial_parameters"


def outliers(growth):
    start = {name: normal(3, seed=index) for index, name in enumerate(growth)}
    now = {name: start[name] * factor for name, factor in growth.items()}
    return WeightNorms().measure(FakeSnapshot(parameters=now, initial_parameters=start))["outlier"]


def test_outliers_are_robust_scores_of_log_growth():
    growth = {"a": 1.0, "b": 1.1, "c": 1.3, "d": 0.9, "head": 8.0}
    reading = outliers({**growth, "gone": 0.0})
    assert reading.keys == tuple(growth)
    assert reading.details["left_out"] == {"gone": "it has no growth above 0"}
    logs = [math.log(g) for g in growth.values()]
    middle = sorted(logs)[2]
    spread = sorted(abs(value - middle) for value in logs)[2]
    assert reading.value.tolist() == pytest.approx([0.6745 * (v - middle) / spread for v in logs], rel=1e-9)
    assert [name for name, z in zip(reading.keys, reading.value.tolist(), strict=True) if abs(z) > 3.5] == ["head"]


def test_outliers_do_not_see_a_growth_common_to_all():
    growth = {"a": 1.0, "b": 1.1, "c": 1.3, "d": 0.9, "head": 8.0}
    one, other = outliers(growth), outliers({name: 5 * g for name, g in growth.items()})
    assert one.value.tolist() == pytest.approx(other.value.tolist(), rel=1e-9)


def test_outliers_need_something_to_stand_out_from():
    assert "3 tensors have a growth" in outliers({"a": 1.0, "b": 2.0, "c": 3.0}).missing
    assert "grown alike" in outliers({"a": 1.0, "b": 1.0, "c": 1.0, "d": 3.0}).missing


def test_reference_takes_the_place_of_the_start(now, start):
    given = WeightNorms(reference={**start, "buffer": torch.zeros(2)}).measure(FakeSnapshot(parameters=now))
    known = WeightNorms().measure(FakeSnapshot(parameters=now, initial_parameters=start))
    for part in ("growth", "distance"):
        assert torch.equal(given[part].value, known[part].value)


@pytest.mark.parametrize(
    ("change", "words"), [({}, "has nothing for 'gain'"), ({"gain": torch.ones(2)}, "shape (2,) for 'gain'")]
)
def test_a_reference_that_does_not_fit_is_a_reason(now, start, change, words):
    reference = {n: p for n, p in start.items() if n != "gain"} | change
    readings = WeightNorms(reference=reference).measure(FakeSnapshot(parameters=now))
    for part in ("growth", "distance"):
        assert words in readings[part].missing


def test_distance_keeps_its_digits_in_float32():
    start = {"w": normal(1000, dtype=torch.float32)}
    now = {"w": -2.9 * start["w"] + 0.1}  # far enough for a difference in float32 to round
    distance = WeightNorms().measure(FakeSnapshot(parameters=now, initial_parameters=start))["distance"].value[0]
    assert float(distance) == pytest.approx(norm(now["w"].double() - start["w"].double()), rel=1e-12)


def test_nan_weights_are_recorded():
    readings = WeightNorms().measure(FakeSnapshot(parameters={"w": torch.tensor([torch.nan])}))
    assert math.isnan(readings["value"].value[0])


def test_update_ratio_is_against_the_weights_before_the_step(start):
    update = {name: normal(*p.shape, seed=9) * 0.01 for name, p in start.items()}
    now = {name: p + update[name] for name, p in start.items()}
    reading = UpdateRatio().measure(with_steps({}, update, parameters=now))
    expected = {n: norm(update[n]) / norm(start[n]) for n in ("fc.weight", "gain")}
    assert dict(zip(reading.keys, reading.value.tolist(), strict=True)) == pytest.approx(expected, rel=1e-9)


def test_update_ratio_names_what_was_zero():
    update = {"w": torch.ones(2), "b": torch.ones(2)}
    reading = UpdateRatio().measure(with_steps({}, update, parameters={"w": torch.full((2,), 3.0), "b": torch.ones(2)}))
    assert reading.keys == ("w",)
    assert reading.value.tolist() == pytest.approx([0.5])
    assert reading.details["left_out"] == {"b": "it was 0 before the step"}


def test_update_ratio_is_missing_without_a_step():
    with pytest.raises(Missing, match="no trajectory"):
        UpdateRatio().measure(FakeSnapshot(parameters={"w": torch.ones(2)}))
    with pytest.raises(Missing, match="0 before the step"):
        UpdateRatio().measure(with_steps({}, {"w": torch.ones(2)}, parameters={"w": torch.ones(2)}))
