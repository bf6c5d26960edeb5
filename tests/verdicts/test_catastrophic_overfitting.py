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


def judged(gap=0.0, abnormal=0.0, pgd=0.3):
    series = {"adv.gap": gap, "adv.abnormal": abnormal, "adv.robust.train": pgd}
    return CatastrophicOverfitting().judge(
        facts({name: (STEPS, np.broadcast_to(value, len(STEPS)).astype(float)) for name, value in series.items()})
    )


def test_a_break_is_an_alarm_since_the_break():
    judgement = judged(np.where(BROKEN, 0.6, 0.05), np.where(BROKEN, 0.3, 0.0), np.where(BROKEN, 0.1, 0.4))
    assert judgement.state == VerdictState.ALARM
    assert abs(judgement.since - BREAK) <= 100


def test_a_gradual_break_without_abnormal_samples_is_watched():
    ramp = np.clip((STEPS - 600) / 1000, 0, 1)
    assert judged(0.4 * ramp, 0.0, 0.2).state == VerdictState.WATCH


def test_a_gap_of_a_network_that_withstands_neither_attack_is_healthy():
    assert judged(gap=0.25, pgd=0.05).state == VerdictState.HEALTHY


def test_a_network_that_withstands_both_attacks_is_healthy():
    assert judged(gap=0.05, pgd=0.8).state == VerdictState.HEALTHY


def test_a_single_abnormal_measurement_is_healthy():
    assert judged(abnormal=np.where(STEPS == BREAK, 0.3, 0.0), pgd=0.7).state == VerdictState.HEALTHY


def test_without_attacks_it_cannot_tell():
    with pytest.raises(Unmeasured, match=r"adv\.gap"):
        CatastrophicOverfitting().judge(facts({}))
