"""Catastrophic overfitting: abnormal samples beside a gap between attacks; a gap alone is any plain network's."""

import numpy as np
import pytest
from synthetic_series import facts

from trainvitals.schema import VerdictState
from trainvitals.verdicts.catastrophic_overfitting import CatastrophicOverfitting
from trainvitals.verdicts.run_facts import Unmeasured

STEPS = np.arange(0, 2000, 50)
BREAK = 1000
BROKEN = STEPS > BREAK


def judged(gap=0.0, abnormal=0.0, linearity=1e-4):
    series = {"adv.gap": gap, "adv.abnormal": abnormal, "adv.linearity": linearity}
    return CatastrophicOverfitting().judge(
        facts({name: (STEPS, np.broadcast_to(value, len(STEPS)).astype(float)) for name, value in series.items()})
    )


def test_a_break_is_an_alarm_since_the_break():
    judgement = judged(np.where(BROKEN, 0.6, 0.05), np.where(BROKEN, 0.3, 0.0), np.where(BROKEN, 1e-2, 1e-4))
    assert judgement.state == VerdictState.ALARM
    assert abs(judgement.since - BREAK) <= 100


def test_abnormal_samples_and_a_bent_loss_come_first_and_are_watched():
    assert judged(0.1, np.where(BROKEN, 0.1, 0.0), np.where(BROKEN, 1e-2, 1e-4)).state == VerdictState.WATCH


def test_a_gap_alone_is_healthy():
    assert judged(gap=0.4).state == VerdictState.HEALTHY


def test_a_loss_that_is_bent_from_the_start_is_healthy():
    assert judged(linearity=1e-1).state == VerdictState.HEALTHY


def test_without_attacks_it_cannot_tell():
    with pytest.raises(Unmeasured, match=r"adv\.gap"):
        CatastrophicOverfitting().judge(facts({}))
