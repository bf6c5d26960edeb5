"""Steps too small: a loss that falls steadily and slowly with tiny steps, and slow losses of other causes."""

import numpy as np
import pytest
from synthetic_series import CHANCE, STEPS, facts, learned, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.run_facts import Unmeasured
from trainvitals.verdicts.step_too_small import StepTooSmall

SLOW = 2.31 - 0.2 * STEPS / STEPS[-1] + 0.002 * white(len(STEPS))


def run(loss, *, update=1e-5, ratio=0.001, rate=0.001, without=(), steps=STEPS):
    series = {
        "loss.train": (steps, loss),
        "update.ratio": (steps, np.broadcast_to(np.reshape(update, (-1, 1)), (len(steps), 3)), ("a", "b", "c")),
        "stability.ratio": (steps[::5], np.full(len(steps[::5]), ratio)),
        "learning_rate": (steps, np.broadcast_to(rate, len(steps)).reshape(-1, 1), ("0",)),
    }
    return facts({name: value for name, value in series.items() if name not in without})


def test_a_slow_steady_fall_with_tiny_steps_is_an_alarm_from_the_start():
    judgement = StepTooSmall().judge(run(SLOW))
    assert judgement.state == VerdictState.ALARM
    assert judgement.since == 0


def test_a_rate_that_was_cut_too_early_began_there():
    rate = np.where(STEPS < 400, 0.1, 0.0501)  # just half
    loss = np.where(STEPS < 400, 2.3 - 0.7 * STEPS / 400, 1.6 - 0.05 * (STEPS - 400) / 1600) + 0.001 * white(len(STEPS))
    judgement = StepTooSmall().judge(run(loss, rate=rate, update=np.where(STEPS < 400, 1e-3, 1e-5)))
    assert judgement.state == VerdictState.ALARM
    assert judgement.since == 400


@pytest.mark.parametrize("steps", [{"update": 2e-3}, {"ratio": 0.4}])
def test_it_takes_all_that_was_measured_of_the_steps(steps):
    assert StepTooSmall().judge(run(SLOW, **steps)).state == VerdictState.HEALTHY


def test_a_fitted_loss_with_tiny_steps_is_not_this():
    assert StepTooSmall().judge(run(learned(over=100.0))).state == VerdictState.HEALTHY


def test_a_plateau_with_tiny_steps_is_not_this():
    flat = CHANCE * (1 + 0.003 * white(len(STEPS)))
    assert StepTooSmall().judge(run(flat)).state == VerdictState.HEALTHY


def test_the_end_of_a_schedule_is_not_this():
    cosine = 0.5 * (1 + np.cos(np.pi * STEPS / STEPS[-1]))
    loss = 1.3 + np.exp(-STEPS / 300) + 0.001 * white(len(STEPS))
    assert StepTooSmall().judge(run(loss, rate=cosine)).state == VerdictState.HEALTHY


def test_tiny_steps_beside_weights_that_were_thrown_are_another_condition():
    norm = (STEPS, np.where(STEPS < 100, 5.0, 400.0)[:, None], ("w",))
    found = run(SLOW)
    found._source.series["weights.norm.value"] = norm
    assert StepTooSmall().judge(found).state == VerdictState.HEALTHY


def test_a_warm_up_is_not_this():
    found = run(SLOW, rate=0.001 * STEPS / STEPS[-1])
    assert states_of_a_replay(StepTooSmall(), found, STEPS[12:]) == [VerdictState.HEALTHY]


def test_one_of_the_two_measures_of_the_steps_is_enough_and_none_is_unknown():
    assert StepTooSmall().judge(run(SLOW, without=("stability.ratio",))).state == VerdictState.ALARM
    assert StepTooSmall().judge(run(SLOW, without=("stability.ratio",))).missing == ("stability.ratio: not measured",)
    with pytest.raises(Unmeasured, match=r"update\.ratio"):
        StepTooSmall().judge(run(SLOW, without=("stability.ratio", "update.ratio")))


def test_a_short_run_is_unknown():
    with pytest.raises(Unmeasured, match="5 of 10"):
        StepTooSmall().judge(run(SLOW[:5], steps=STEPS[:5]))


@pytest.mark.parametrize("seed", range(5))
def test_a_replay_does_not_flicker(seed):
    assert states_of_a_replay(StepTooSmall(), run(learned(noise=0.05, seed=seed)), STEPS[12:]) == [VerdictState.HEALTHY]
    slow = 2.31 - 0.2 * STEPS / STEPS[-1] + 0.002 * white(len(STEPS), seed)
    assert len(states_of_a_replay(StepTooSmall(), run(slow), STEPS[12:])) <= 2
