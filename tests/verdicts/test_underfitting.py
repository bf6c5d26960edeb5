"""Underfitting: a plateau far up with something that holds it, told from what noisy data allows."""

import numpy as np
import pytest
from synthetic_series import CHANCE, STEPS, facts, learned, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.run_facts import Unmeasured
from trainvitals.verdicts.underfitting import Underfitting

HIGH = learned(end=1.2, over=100.0, noise=0.005)  # half of chance
DECAY = {"optimizer": {"class": "SGD", "groups": [{"lr": 0.1, "weight_decay": 0.05}]}}


def layers(value, keys=("a", "b")):
    return STEPS, np.repeat(np.broadcast_to(value, len(STEPS)).reshape(-1, 1), len(keys), 1), keys


def judged(loss=HIGH, meta=None, growth=1.0, update=1e-2, **series):
    base = {"loss.train": (STEPS, loss), "weights.norm.growth": layers(growth), "update.ratio": layers(update)}
    return Underfitting().judge(facts({**base, **series}, meta))


def test_a_plateau_with_weights_shrunk_by_decay_is_found_since_it_began():
    judgement = judged(meta=DECAY, growth=np.maximum(1 - STEPS / 400, 0.3))
    assert judgement.state == VerdictState.WATCH
    assert 150 <= judgement.since <= 450  # 95 % of the fall is done at 300


def test_two_reasons_are_an_alarm():
    series = {"oui": (STEPS, np.full(len(STEPS), 0.2))}
    assert judged(meta=DECAY, growth=np.maximum(1 - STEPS / 400, 0.3), **series).state == VerdictState.ALARM


def test_nothing_learned_is_worth_watching():
    assert judged(CHANCE * (1 + 0.002 * white(len(STEPS)))).state == VerdictState.WATCH


def test_a_loss_that_has_only_begun_to_fall_is_healthy():
    late = np.clip((STEPS - 0.7 * STEPS[-1]) / (0.3 * STEPS[-1]), 0, None)
    slow = CHANCE * (1 - 0.05 * late**2 + 0.0005 * white(len(STEPS)))
    assert judged(CHANCE * (1 + 0.0005 * white(len(STEPS)))).state == VerdictState.WATCH
    assert judged(slow).state == VerdictState.HEALTHY


def test_it_was_noticed_no_earlier_than_it_began():
    judgement = judged(CHANCE * (1 - 0.02 * STEPS / STEPS[-1] + 0.002 * white(len(STEPS))))
    assert judgement.state == VerdictState.WATCH
    assert judgement.since <= judgement.noticed


def test_a_plateau_alone_is_healthy_and_the_summary_says_what_it_may_be():
    judgement = judged()
    assert judgement.state == VerdictState.HEALTHY
    assert "stands still" in judgement.summary


def test_oui_never_speaks_alone():
    assert judged(oui=(STEPS, np.full(len(STEPS), 0.1))).state == VerdictState.HEALTHY


@pytest.mark.parametrize("loss", [learned(end=0.05, over=100.0), 2.3 - 1.5 * STEPS / STEPS[-1]])
def test_a_low_loss_and_one_that_still_falls_are_healthy(loss):
    assert judged(loss, meta=DECAY, growth=0.3).state == VerdictState.HEALTHY


def test_noisy_train_labels_are_not_underfitting():
    accuracy = {
        "accuracy.train": (STEPS, np.full(len(STEPS), 0.7)),
        "accuracy.heldout": (STEPS, np.full(len(STEPS), 0.92)),
    }
    assert judged(meta=DECAY, growth=np.maximum(1 - STEPS / 400, 0.3), **accuracy).state == VerdictState.HEALTHY


def test_features_of_too_few_dimensions_are_a_reason():
    assert judged(**{"rank.effective": (STEPS, np.full(len(STEPS), 2.0))}).state == VerdictState.WATCH


def test_neighbours_that_know_more_are_a_reason():
    series = {"probe.knn": (STEPS, np.full(len(STEPS), 0.9)), "accuracy.heldout": (STEPS, np.full(len(STEPS), 0.6))}
    assert judged(**series).state == VerdictState.WATCH


def test_a_loss_that_had_been_lower_is_something_else():
    lost = np.where(STEPS < 600, learned(end=0.1, over=60.0), 2.4)
    assert judged(lost).state == VerdictState.HEALTHY


def test_steps_that_are_not_taken_are_something_else():
    assert judged(np.full(len(STEPS), CHANCE), update=1e-6).state == VerdictState.HEALTHY


def test_without_a_train_loss_it_cannot_tell():
    with pytest.raises(Unmeasured):
        Underfitting().judge(facts({}))
