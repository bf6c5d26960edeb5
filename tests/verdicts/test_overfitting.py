"""Overfitting: the turn of the held-out loss is found, and gaps, noise, spikes and late generalisation are not it."""

import numpy as np
import pytest
from synthetic_series import FIRED, STEPS, facts, learned, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.overfitting import Overfitting
from trainvitals.verdicts.run_facts import Unmeasured

TURN = 600


def turning(by=0.8, noise=0.01, seed=0, scale=1.0):
    """A held-out loss that falls as the train loss does and rises from TURN on."""
    rise = by * np.maximum(STEPS - TURN, 0) / (STEPS[-1] - TURN)
    return scale * (learned(end=0.6, over=150.0, noise=0.0) + rise + noise * white(len(STEPS), seed))


def judged(heldout, train=None, names=("loss.heldout", "loss.train"), **series):
    train = learned(over=300.0) if train is None else train
    run = facts({names[0]: (STEPS, heldout), names[1]: (STEPS, train), **series})
    return Overfitting().judge(run)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_turn_is_an_alarm_since_the_turn_on_every_scale(seed, scale):
    judgement = judged(turning(seed=seed, scale=scale), train=scale * learned())
    assert judgement.state == VerdictState.ALARM
    assert abs(judgement.since - TURN) <= 120  # the bottom is flat within the noise for about so long
    assert TURN < judgement.noticed < TURN + 500


def test_a_gap_that_stays_is_healthy_however_large():
    assert judged(learned(end=1.5, noise=0.005), train=learned(end=0.001)).state == VerdictState.HEALTHY


def test_a_gap_that_grows_while_the_heldout_loss_still_falls_is_healthy():
    assert judged(2.3 - STEPS / 4000 + 0.01 * white(len(STEPS)), train=learned(end=0.001)).state == VerdictState.HEALTHY


def test_noise_round_a_level_is_healthy():
    fired = [judged(1.0 + 0.1 * white(len(STEPS), s)).state in FIRED for s in range(40)]
    assert sum(fired) <= 1


def test_both_losses_rising_is_not_overfitting():
    rising = learned() + np.maximum(STEPS - 1000, 0) / 500
    assert judged(rising + 0.3, train=rising).state == VerdictState.HEALTHY


def test_a_spike_that_recovers_is_not_overfitting():
    heldout = learned(end=0.5, noise=0.005)
    heldout[50:52] *= 5
    assert judged(heldout).state == VerdictState.HEALTHY


def test_late_generalisation_is_healthy_again_in_the_end():
    bump = 2.0 * np.exp(-(((STEPS - 700) / 200) ** 2))  # it gets worse, then better than ever
    heldout = learned(end=0.0, over=800.0, noise=0.0) + bump
    run = facts({"loss.heldout": (STEPS, heldout), "loss.train": (STEPS, learned(over=100.0))})
    assert Overfitting().judge(run.until(700)).state in FIRED
    assert Overfitting().judge(run).state == VerdictState.HEALTHY


def test_a_small_turn_is_only_watched_and_an_accuracy_that_falls_makes_it_an_alarm():
    small = turning(by=0.08, noise=0.002)
    accuracy = 0.9 - 0.1 * np.maximum(STEPS - TURN, 0) / (STEPS[-1] - TURN)
    assert judged(small).state == VerdictState.WATCH
    assert judged(small, **{"accuracy.heldout": (STEPS, accuracy)}).state == VerdictState.ALARM


def test_an_accuracy_that_falls_alone_is_healthy():
    accuracy = 0.9 - 0.1 * STEPS / STEPS[-1]
    found = judged(learned(end=0.5, noise=0.005), **{"accuracy.heldout": (STEPS, accuracy)})
    assert found.state == VerdictState.HEALTHY


def test_a_users_own_logs_are_enough_at_a_lower_confidence():
    logged = judged(turning(), names=("val_loss", "train_loss"))
    probed = judged(turning())
    assert logged.state == VerdictState.ALARM
    assert logged.confidence < probed.confidence
    assert any("val_loss" in words for words in logged.missing)


def test_irregular_evaluation_finds_the_same_turn():
    chosen = np.sort(np.random.default_rng(0).choice(len(STEPS), 40, replace=False))
    run = facts({"loss.heldout": (STEPS[chosen], turning()[chosen]), "loss.train": (STEPS, learned())})
    found = Overfitting().judge(run)
    assert found.state == VerdictState.ALARM
    assert abs(found.since - TURN) <= 150


def test_gaps_of_nan_change_nothing():
    heldout = turning()
    heldout[20:25] = np.nan
    assert judged(heldout).state == VerdictState.ALARM


def test_without_a_heldout_loss_it_cannot_tell():
    with pytest.raises(Unmeasured):
        Overfitting().judge(facts({"loss.train": (STEPS, learned())}))


def test_a_replay_does_not_flicker():
    run = facts({"loss.heldout": (STEPS, turning()), "loss.train": (STEPS, learned())})
    states = states_of_a_replay(Overfitting(), run, STEPS[12:])
    assert states in (["healthy", "watch", "alarm"], ["healthy", "alarm"])
