"""Gradient conflict: opposed classes that hold each other up, told from classes that are being told apart."""

import numpy as np
import pytest
from synthetic_series import CHANCE, STEPS, facts, learned

from trainvitals.schema import VerdictState
from trainvitals.verdicts.gradient_conflict import GradientConflict
from trainvitals.verdicts.run_facts import Unmeasured

KEYS = ("0", "1", "2", "3")


def classes(value, keys=KEYS):
    return STEPS, np.repeat(np.broadcast_to(value, len(STEPS)).reshape(-1, 1), len(keys), 1), keys


def judged(cosine, norm, loss, keys=KEYS):
    series = {"grad.per_class.min_cosine": classes(cosine, keys), "grad.per_class.norm": classes(norm, keys)}
    return GradientConflict().judge(facts({"loss.train": (STEPS, loss), **series}))


STUCK = learned(end=0.5 * CHANCE, over=100.0, noise=0.002)
FALLING = np.linspace(-0.2, -0.8, len(STEPS))


def test_opposed_classes_that_keep_pulling_at_a_plateau_are_an_alarm():
    judgement = judged(np.where(STEPS < 200, -0.2, -0.8), 3.0, STUCK)
    assert judgement.state == VerdictState.ALARM
    assert 100 <= judgement.since <= 300


def test_a_conflict_that_sets_in_later_began_then():
    norm = np.where(STEPS < 1000, 3 * np.exp(-STEPS / 200), 3.0)
    loss = np.where(STEPS < 1000, learned(end=0.1, over=100.0), 0.5 * CHANCE)
    judgement = judged(FALLING, norm, loss)
    assert judgement.state == VerdictState.ALARM
    assert 950 <= judgement.since <= 1150


def test_opposed_classes_whose_gradients_fade_are_being_told_apart():
    assert judged(-0.8, np.exp(-STEPS / 300), learned(end=0.02)).state == VerdictState.HEALTHY


def test_a_plateau_of_classes_that_do_not_oppose_is_not_conflict():
    assert judged(-0.3, 3.0, STUCK).state == VerdictState.HEALTHY


def test_two_classes_always_oppose_and_say_nothing():
    with pytest.raises(Unmeasured, match="three classes"):
        judged(-0.99, 3.0, STUCK, keys=("0", "1"))


def test_groups_stand_in_for_classes():
    series = {"grad.per_group.min_cosine": classes(-0.8), "grad.per_group.norm": classes(3.0)}
    found = GradientConflict().judge(facts({"loss.train": (STEPS, STUCK), **series}))
    assert found.state == VerdictState.ALARM
    assert "group" in found.summary
