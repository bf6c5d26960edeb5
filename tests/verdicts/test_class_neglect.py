"""Class neglect: one class left behind when the others are learned, told from a bad start and from all being bad."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts

from trainvitals.schema import VerdictState
from trainvitals.verdicts.class_neglect import ClassNeglect
from trainvitals.verdicts.run_facts import Unmeasured

KEYS = tuple("abcde")
LEARNED = np.minimum(STEPS / 300, 0.95)


def classes(common, rare):
    columns = [np.broadcast_to(np.asarray(v, float), len(STEPS)) for v in (rare, *[common] * 4)]
    return STEPS, np.stack(columns, 1), KEYS


def judged(**series):
    return ClassNeglect().judge(facts({f"per_class.{name}": value for name, value in series.items()}))


def test_a_class_that_is_left_behind_on_train_and_heldout_data_is_an_alarm_from_when_the_others_are_learned():
    judgement = judged(accuracy_train=classes(LEARNED, 0.0), accuracy_heldout=classes(LEARNED, 0.05))
    assert judgement.state == VerdictState.ALARM
    assert judgement.since <= 400
    assert "class a" in judgement.summary


def test_recall_and_loss_of_one_probe_are_an_alarm():
    series = {"accuracy_heldout": classes(LEARNED, 0.05), "loss_heldout": classes(2.3 - LEARNED, 4.0)}
    assert judged(**series).state == VerdictState.ALARM


def test_one_metric_alone_is_only_watched_when_it_is_all_there_is():
    assert judged(accuracy_heldout=classes(LEARNED, 0.0)).state == VerdictState.WATCH


def test_a_class_that_comes_later_is_healthy_in_the_end():
    late = np.minimum(np.maximum(STEPS - 500, 0) / 500, 0.9)
    assert (
        judged(accuracy_train=classes(LEARNED, late), accuracy_heldout=classes(LEARNED, late)).state
        == VerdictState.HEALTHY
    )


def test_the_hardest_class_of_several_good_ones_is_healthy():
    assert (
        judged(accuracy_heldout=classes(LEARNED, 0.6), accuracy_train=classes(LEARNED, 0.7)).state
        == VerdictState.HEALTHY
    )


def test_a_network_that_learned_no_class_neglects_none():
    assert judged(accuracy_heldout=classes(0.2, 0.0), accuracy_train=classes(0.2, 0.0)).state == VerdictState.HEALTHY


def test_the_worst_group_counts_like_a_class():
    found = ClassNeglect().judge(
        facts({f"per_group.accuracy_{where}": classes(LEARNED, 0.1) for where in ("train", "heldout")})
    )
    assert found.state == VerdictState.ALARM
    assert "group a" in found.summary


def test_without_recall_by_class_it_cannot_tell():
    with pytest.raises(Unmeasured, match=r"per_class\.accuracy_heldout"):
        judged()


def test_a_class_that_was_never_learned_parts_from_the_others_when_they_are_learned():
    found = judged(accuracy_train=classes(LEARNED, 0.0), accuracy_heldout=classes(LEARNED, 0.0))
    first = int(STEPS[np.flatnonzero(LEARNED > 0.1 + 0.5 * 0.9)[0]])
    assert found.since == first > 0
    never = "was never learned: its accuracy was always 0 %"
    assert f"{never}, while the median class was learned from step {first:,} on" in found.summary


def test_others_that_are_left_behind_too_are_named():
    common, rare = np.broadcast_to(LEARNED, len(STEPS)), np.zeros(len(STEPS))
    recall = STEPS, np.stack([rare, 0.3 * common, common, common, common], 1), KEYS
    found = judged(accuracy_train=recall, accuracy_heldout=recall)
    assert "; below 40 % of the median class now too: b." in found.summary
