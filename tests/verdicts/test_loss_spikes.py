"""Loss spikes: one is to be watched, several are an alarm, and old ones are forgotten."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts, learned, states_of_a_replay

from trainvitals.schema import VerdictState
from trainvitals.verdicts.loss_spikes import LossSpikes
from trainvitals.verdicts.run_facts import Unmeasured


def spiked(*at, steps=STEPS, **more):
    loss = learned(steps, **more)
    for i in at:
        loss[i : i + 3] *= [15, 6, 2]
    return loss


def judged(loss, steps=STEPS, **series):
    return LossSpikes().judge(facts({"loss.train": (steps, loss), **series}))


def test_no_spike_is_healthy_one_is_watched_three_are_an_alarm():
    assert judged(learned()).state == VerdictState.HEALTHY
    assert judged(spiked(70)).state == VerdictState.WATCH
    several = judged(spiked(60, 75, 90))
    assert several.state == VerdictState.ALARM
    assert several.since == STEPS[60]
    assert "3 times" in several.summary


def test_a_spike_at_a_leap_of_the_learning_rate_points_at_the_schedule():
    leap = STEPS[70]

    def advice(after):
        rate = np.where(leap > STEPS, 0.01, after)[:, None]
        return judged(spiked(70), learning_rate=(STEPS, rate, ("0",))).advice[0].text

    assert f"leapt from 0.01 at step {STEPS[69]:,} to 0.5 at step {leap:,}" in advice(0.5)
    assert "skip such batches" in advice(0.012)


def test_spikes_of_the_first_quarter_are_forgotten():
    assert judged(spiked(23)).state == VerdictState.HEALTHY


def test_a_loss_that_is_logged_at_every_step_shows_what_the_probe_does_not():
    dense = np.arange(2000)
    logged = spiked(1300, 1500, 1700, steps=dense)
    judgement = judged(learned(), train_loss=(dense, logged))
    assert judgement.state == VerdictState.ALARM
    assert judgement.since == 1300
    assert judgement.evidence[0].metric == "train_loss"


def test_a_held_out_loss_that_is_logged_is_not_asked():
    dense = np.arange(2000)
    assert judged(learned(), val_loss=(dense, spiked(1300, 1500, 1700, steps=dense))).state == VerdictState.HEALTHY


def test_a_short_run_is_unknown():
    with pytest.raises(Unmeasured, match="of 21"):
        judged(learned(STEPS[:15]), STEPS[:15])


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_does_not_flicker(seed):
    run = facts({"loss.train": (STEPS, learned(noise=0.1, seed=seed))})
    assert states_of_a_replay(LossSpikes(), run, STEPS[25:]) == [VerdictState.HEALTHY]
    run = facts({"loss.train": (STEPS, spiked(70, 80, 90, seed=seed))})
    seen = states_of_a_replay(LossSpikes(), run, STEPS[25:])
    assert seen == [VerdictState.HEALTHY, VerdictState.WATCH, VerdictState.ALARM]
