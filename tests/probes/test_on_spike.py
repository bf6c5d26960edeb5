"""A spike makes the next step due, at once and once; noise, drift and other names do not."""

import random

import pytest
from scheduled_training import trained

import trainvitals as tv


def fed(schedule, values, name="loss"):
    return [step for step, value in enumerate(values) if schedule.hear(step, name, value)]


def noisy(num, seed=0, slope=0.0):
    rng = random.Random(seed)
    return [1.0 + slope * i + rng.gauss(0.0, 0.05) for i in range(num)]


def test_a_jump_makes_the_next_step_due():
    schedule = tv.on_spike()
    assert fed(schedule, [*noisy(40), 2.0]) == [40]
    assert schedule.due(41)
    assert not schedule.due(40)
    assert not schedule.due(42)
    assert schedule.after(40) == 41


@pytest.mark.parametrize("seed", range(5))
def test_normal_noise_and_a_slow_fall_are_no_spikes(seed):
    assert fed(tv.on_spike(), noisy(2000, seed)) == []
    assert fed(tv.on_spike(), noisy(2000, seed, slope=-1e-4)) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_a_spike_and_does_not_spoil_the_median(value):
    schedule = tv.on_spike(rest=0)
    assert fed(schedule, [*noisy(30), value, value]) == [30, 31]
    assert not schedule.hear(40, "loss", 1.0)


def test_after_a_spike_there_is_rest():
    schedule = tv.on_spike(rest=10)
    assert fed(schedule, [*noisy(30), *[5.0] * 5, *noisy(10), 5.0]) == [30, 45]


def test_only_the_name_asked_for_counts_and_each_name_has_its_own_median():
    schedule = tv.on_spike("mine")
    assert fed(schedule, [*noisy(30), 9.0], "loss") == []
    assert fed(schedule, [*noisy(30), 9.0], "mine") == [30]
    either = tv.on_spike()
    for step, value in enumerate(noisy(30)):
        assert not either.hear(step, "train_loss", value)
        assert not either.hear(step, "val_loss", 10 * value)
    assert either.hear(30, "train_loss", 3.0)


def test_a_constant_does_not_jump_in_its_last_digit():
    assert fed(tv.on_spike(), [*[1.0] * 30, 1.0 + 1e-6]) == []


def test_it_begins_anew_for_every_run():
    schedule = tv.on_spike()
    fed(schedule, [*noisy(30), 9.0])
    assert not schedule.fresh().due(31)


@pytest.mark.parametrize("wrong", [{"window": 3}, {"rest": -1}])
def test_what_is_no_number_of_steps_is_refused(wrong):
    with pytest.raises(ValueError, match="in on_spike"):
        tv.on_spike(**wrong)


def test_a_logged_spike_is_measured_at_the_step_after(tmp_path):
    def logged(run):
        run.log(train_loss=9.0 if run.step == 30 else 1.0 + 0.01 * (run.step % 3))

    every = {"hessian.top": tv.on_spike("train_loss"), "weights.norm": tv.every(20) | tv.on_spike()}
    found = trained(tmp_path, 45, logged, probes=["hessian.top", "weights.norm"], every=every)
    assert found["hessian.top"] == [31]
    assert found["weights.norm.value"] == [0, 20, 31, 40]
