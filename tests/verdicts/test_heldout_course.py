"""The held-out loss's course: its turn is found to the point, its names are recognised, and it looks back only."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts, learned, white

from trainvitals.verdicts.heldout_course import heldout_course
from trainvitals.verdicts.run_facts import Unmeasured

TURN = 800
V_SHAPE = 1.0 + np.abs(STEPS - TURN) / 1000


def course(heldout=V_SHAPE, train=None, names=("loss.heldout", "loss.train")):
    train = learned() if train is None else train
    return heldout_course(facts({names[0]: (STEPS, heldout), names[1]: (STEPS, train)}))


@pytest.mark.parametrize("seed", range(10))
def test_the_turn_of_a_noisy_valley_is_found_within_the_noise(seed):
    # a valley of slope 1/1000 a step under noise of 0.02: 20 steps of slope are one deviation of the mean of five
    assert abs(course(V_SHAPE + 0.02 * white(len(STEPS), seed)).turn_step - TURN) <= 100


def test_without_noise_the_turn_is_exact():
    assert course().turn_step == TURN


def test_rise_and_fall_are_those_of_the_smooth_series():
    found = course()
    assert found.rise[-1] == pytest.approx(V_SHAPE[-3] - 1.0, abs=0.03)  # a median of five looks back two points
    assert found.fall[-1] == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_noise_is_that_of_white_noise_on_a_slope(scale):
    found = course(scale * (3 - STEPS / 1000 + 0.1 * white(len(STEPS))))
    assert found.noise[-1] == pytest.approx(0.1 * scale, rel=0.5)  # from 40 points: about 20 % of a deviation


@pytest.mark.parametrize(
    "names", [("val_loss", "train_loss"), ("val/loss", "train/loss"), ("Loss/val", "loss"), ("eval_loss", "batch_loss")]
)
def test_losses_that_a_user_logs_are_recognised(names):
    assert course(names=names).loss.name == names[0]


def test_the_probes_come_before_logs():
    series = {"val_loss": (STEPS, V_SHAPE), "loss.heldout": (STEPS, V_SHAPE), "loss.train": (STEPS, learned())}
    assert heldout_course(facts(series)).loss.name == "loss.heldout"


def test_nothing_held_out_is_unmeasured():
    with pytest.raises(Unmeasured, match=r"loss\.heldout: not measured"):
        heldout_course(facts({"loss.train": (STEPS, learned())}))


def test_too_few_points_are_unmeasured():
    with pytest.raises(Unmeasured, match=r"loss\.heldout: 5 of 8"):
        heldout_course(facts({"loss.heldout": (STEPS[:5], V_SHAPE[:5]), "loss.train": (STEPS, learned())}))


def test_what_is_said_of_a_step_does_not_change_with_later_points():
    noisy = V_SHAPE + 0.05 * white(len(STEPS))
    whole = course(noisy)
    run = facts({"loss.heldout": (STEPS, noisy), "loss.train": (STEPS, learned())})
    for step in STEPS[10::7]:
        part = heldout_course(run.until(int(step)))
        n = len(part.loss)
        for name in ("rise", "best", "fall", "noise", "train_fall"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[:n], rtol=1e-12, atol=1e-12)
