"""Wrong labels memorised: the fall of the held-out accuracy with suspects fitted, and its look-alikes."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts

from trainvitals.schema import VerdictState
from trainvitals.verdicts.label_noise import LabelNoise
from trainvitals.verdicts.run_facts import Unmeasured

START = 600  # of memorising
KEYS = tuple(str(i) for i in range(100))


def ramp(first, last, begin=START, end=1600):
    """From `first` to `last` between two steps."""
    return first + (last - first) * np.clip((STEPS - begin) / (end - begin), 0, 1)


def el2n(share_wrong=0.3, fitted=True):
    """Error norms: right labels fall early, wrong ones stand at 1.2 and fall from START on, if they are fitted."""
    right = np.maximum(0.95 - STEPS / 300, 0.05)
    wrong = np.where(STEPS < 100, 0.95, 1.2) - (ramp(0, 1.1) if fitted else 0.0)
    num = round(share_wrong * len(KEYS))
    return STEPS, np.stack([wrong] * num + [right] * (len(KEYS) - num), 1), KEYS


def judged(train=None, heldout=None, **series):
    learned = np.minimum(0.1 + STEPS / 250, 1.0)
    train = np.minimum(learned, ramp(0.7, 1.0)) if train is None else train
    heldout = np.minimum(learned, ramp(0.92, 0.7)) if heldout is None else heldout
    return LabelNoise().judge(facts({"accuracy.train": (STEPS, train), "accuracy.heldout": (STEPS, heldout), **series}))


def test_memorised_wrong_labels_are_an_alarm_since_they_began_to_be_fitted():
    judgement = judged(el2n=el2n())
    assert judgement.state == VerdictState.ALARM
    assert abs(judgement.since - START) <= 200  # 15 % of the suspects are fitted by then


def test_accuracies_alone_are_enough_to_watch_at_a_lower_confidence():
    judgement = judged()
    assert judgement.state in (VerdictState.WATCH, VerdictState.ALARM)
    assert judgement.confidence < judged(el2n=el2n()).confidence
    assert judgement.missing


def test_wrong_labels_that_stay_out_are_healthy():
    assert judged(train=np.minimum(0.1 + STEPS / 250, 0.7), heldout=np.minimum(0.1 + STEPS / 250, 0.92),
                  el2n=el2n(fitted=False)).state == VerdictState.HEALTHY  # fmt: skip


def test_memory_that_costs_nothing_is_healthy():
    assert judged(heldout=np.minimum(0.1 + STEPS / 250, 0.95), el2n=el2n()).state == VerdictState.HEALTHY


def test_a_heldout_accuracy_that_falls_without_suspects_is_not_label_noise():
    train = np.minimum(0.1 + STEPS / 250, 1.0)
    assert judged(train=train, el2n=el2n(share_wrong=0.02)).state == VerdictState.HEALTHY


def test_what_is_lost_on_both_is_no_memory():
    fall = np.where(STEPS < START, 0.9, 0.3)
    assert judged(train=fall, heldout=fall + 0.06, el2n=el2n(fitted=False)).state == VerdictState.HEALTHY


def test_without_a_heldout_accuracy_it_cannot_tell():
    with pytest.raises(Unmeasured, match=r"accuracy\.heldout"):
        LabelNoise().judge(facts({"accuracy.train": (STEPS, ramp(0.1, 1.0))}))
