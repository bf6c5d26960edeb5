"""The course of the train loss against chance, its start and its best."""

import numpy as np
import pytest
from synthetic_series import CHANCE, STEPS, facts, learned

from trainvitals.verdicts.loss_course import WINDOW, level_sign, loss_course, lost_sign
from trainvitals.verdicts.run_facts import Unmeasured


def course(loss, **more):
    return loss_course(facts({"loss.train": (STEPS[: len(loss)], loss)}, **more))


def test_the_reference_is_chance_or_the_first_loss():
    assert course(learned()).reference == pytest.approx(CHANCE)
    assert course(learned(), chance=False).reference == learned()[0]


def test_progress_that_was_lost_is_a_share_of_what_was_gained():
    found = course(np.concatenate([np.linspace(CHANCE, 0.3, 50), np.full(20, 1.3)]))
    assert found.lost[49] == pytest.approx(0, abs=0.05)
    assert found.lost[-1] == pytest.approx(1.0 / (CHANCE - 0.3), rel=0.1)


def test_noise_round_the_start_is_no_progress_to_lose():
    rng = np.random.default_rng(0)
    assert course(CHANCE * (1 + 0.02 * rng.normal(size=80))).lost.max() < 0.5


def test_bounces_are_the_rises_of_the_last_points_each_cut_off():
    loss = np.full(40, 1.0)
    loss[20] = 1000.0
    found = course(loss)
    assert found.bounces[20] == pytest.approx(0.3)
    assert found.bounces[20 + WINDOW] == pytest.approx(0, abs=1e-12)
    assert course(np.tile([0.5, 2.0], 20)).bounces[-1] == pytest.approx(0.3 * WINDOW / 2)


def test_the_peak_is_over_the_larger_of_start_and_chance():
    assert course(np.array([5.0, 1, 1, 20, 1, 1, 1, 1])).peak[-1] == pytest.approx(4.0)


def test_everything_looks_back_only():
    loss = learned(noise=0.3)
    whole, part = course(loss), course(loss[:40])
    for name in ("lost", "level", "bounces", "peak"):
        assert getattr(part, name).tolist() == pytest.approx(getattr(whole, name)[:40].tolist())


def test_too_few_points_or_no_scale_are_unknown():
    with pytest.raises(Unmeasured, match="3 of 8"):
        course(np.ones(3))
    with pytest.raises(Unmeasured, match="not positive"):
        course(-np.ones(20), chance=False)


def test_lost_progress_is_told_with_recorded_losses():
    loss = np.concatenate([np.linspace(CHANCE, 0.3, 30), np.full(20, 2.0), np.linspace(2.0, 1.5, 4)])
    found = course(loss)
    told = lost_sign(found, 0.5, "a test", 0.25).evidence()
    beside = "after 0.3 at its best and 2.3 for guessing"
    assert told.words == f"the train loss is 1.5, {beside}: 60 % of its progress is lost again"
    assert found.lost_as_recorded[-1] == pytest.approx((1.5 - 0.3) / (CHANCE - 0.3))
    assert level_sign(found, 0.6, 0.5).evidence().words == "the train loss, 1.5, is at 65 % of that of guessing"
