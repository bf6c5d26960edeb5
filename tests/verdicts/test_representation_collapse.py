"""Representation collapse: rank lost with the classes, against neural collapse, bottlenecks and small tasks."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts, learned, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.engine import judge
from trainvitals.verdicts.representation_collapse import RepresentationCollapse
from trainvitals.verdicts.run_facts import Unmeasured

RARE = STEPS[::2]
LOST = np.where(RARE < 1000, 20.0, 1.3)


def run(rank, accuracy=0.95, **more):
    series = {"rank.effective": (RARE[: np.size(rank)] if np.ndim(rank) else RARE, np.broadcast_to(rank, np.size(rank)
              if np.ndim(rank) else len(RARE))), "loss.train": (STEPS, learned())}  # fmt: skip
    if accuracy is not None:
        series["accuracy.train"] = (STEPS, np.broadcast_to(accuracy, len(STEPS)))
    return facts(series, **more)


FELL = np.where(STEPS < 1000, 0.9, 0.12)


def test_rank_and_accuracy_that_fall_together_are_an_alarm_since_then():
    judgement = RepresentationCollapse().judge(run(LOST, FELL))
    assert judgement.state == VerdictState.ALARM
    assert abs(judgement.since - 1000) <= 40


def test_features_that_are_the_same_for_every_sample_count_as_one_direction():
    flat = tuple((int(step), "the features are the same for every sample") for step in RARE[25:])
    found = run(np.full(25, 20.0), FELL, undefined={"rank.effective": flat})
    assert RepresentationCollapse().judge(found).state == VerdictState.ALARM


@pytest.mark.parametrize("accuracy", [None, 0.95], ids=["no labels", "a classifier"])
def test_a_rank_that_is_usual_is_healthy(accuracy):
    assert RepresentationCollapse().judge(run(15 + 20 * np.exp(-RARE / 200), accuracy)).state == VerdictState.HEALTHY


def test_a_bottleneck_by_design_is_healthy():
    assert RepresentationCollapse().judge(run(4.0 + 0.2 * white(len(RARE)), 0.97)).state == VerdictState.HEALTHY


def test_a_bottleneck_of_two_units_that_cannot_tell_ten_classes_apart_has_lost_nothing():
    assert RepresentationCollapse().judge(run(1.8 + 0.05 * white(len(RARE)), 0.4)).state == VerdictState.HEALTHY


def test_neural_collapse_is_another_thing():
    rank = 9 + 20 * np.exp(-RARE / 200)
    assert RepresentationCollapse().judge(run(rank, 1.0)).state == VerdictState.HEALTHY


def test_half_of_the_rank_lost_with_a_quarter_of_the_samples_is_an_alarm():
    rank = np.where(RARE < 1000, 12.0, 5.5)
    assert RepresentationCollapse().judge(run(rank, np.where(STEPS < 1000, 0.97, 0.7))).state == VerdictState.ALARM
    assert RepresentationCollapse().judge(run(rank, 0.97)).state == VerdictState.HEALTHY


def test_a_task_that_is_not_learned_has_not_lost_its_features():
    assert RepresentationCollapse().judge(run(25.0, 0.1)).state == VerdictState.HEALTHY


def test_without_labels_a_rank_that_falls_to_next_to_one_is_an_alarm():
    assert RepresentationCollapse().judge(run(LOST, None, chance=False)).state == VerdictState.ALARM


def test_few_measurements_are_unknown():
    with pytest.raises(Unmeasured, match=r"rank\.effective"):
        RepresentationCollapse().judge(run(np.array([20.0, 19.0])))


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_does_not_flicker(seed):
    noisy = run(8 + 0.5 * white(len(RARE), seed))
    assert states_of_a_replay(RepresentationCollapse(), noisy, RARE[6:]) == [VerdictState.HEALTHY]
    lost = run(LOST * (1 + 0.05 * white(len(RARE), seed)), FELL)
    assert len(states_of_a_replay(RepresentationCollapse(), lost, RARE[6:])) == 2


def test_features_whose_units_are_all_dead_cannot_be_judged():
    why = "all units of the layer are dead: the features are zero on every sample"
    gone = tuple((int(step), why) for step in RARE[25:])
    (found,) = judge(run(np.full(25, 20.0), undefined={"rank.effective": gone}), [RepresentationCollapse()])
    assert found.state == VerdictState.UNKNOWN
    assert found.missing == (f"rank.effective: no value since step {RARE[25]:,}, because {why}",)
    (once,) = judge(run(np.full(25, 20.0), undefined={"rank.effective": gone[:1]}), [RepresentationCollapse()])
    assert once.state == VerdictState.HEALTHY


def test_the_accuracy_stands_beside_its_best_and_beside_guessing():
    words = [e.words for e in RepresentationCollapse().judge(run(LOST, FELL)).evidence]
    assert "the train accuracy is 12 %, after 90 % at its best and 10 % for guessing" in words
