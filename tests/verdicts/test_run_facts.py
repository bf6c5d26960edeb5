"""A run as conditions see it: earlier moments, what is missing and why, learning rate, task."""

import numpy as np
import pytest
from synthetic_series import facts

from trainvitals.schema import Event
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.source import MemorySource


def test_an_earlier_moment_shows_nothing_of_what_came_later():
    run = facts(
        {"loss.train": ([0, 10, 20], [3.0, np.nan, 1.0]), "units.dead": ([0, 20], [[0.1], [0.2]], ("x",))},
        happened=(Event(15, 0.0, "warning", "later"),), undefined={"nc1": ((0, "early"), (20, "late"))},
    )  # fmt: skip
    then = run.until(10)
    assert then.series("loss.train").step.tolist() == [0]
    assert len(then.layers("units.dead")) == 1
    assert then.first_nonfinite("loss.train") == 10
    assert then.events == ()
    assert then.absences("nc1") == ((0, "early"),)
    assert run.series("loss.train").step.tolist() == [0, 20]


def test_what_is_missing_is_said_with_its_reason():
    run = facts({"loss.train": ([0, 10], [1.0, 2.0])}, undefined={"nc1": ((0, "only one class"),)})
    with pytest.raises(Unmeasured) as error:
        run.need("loss.train", 8)
    assert error.value.missing == ("loss.train: 2 of 8 measurements needed",)
    with pytest.raises(Unmeasured, match="nc1: only one class"):
        run.need("nc1")
    with pytest.raises(Unmeasured, match=r"units\.dead: not measured"):
        run.need_layers("units.dead")


def test_the_learning_rate_is_the_largest_of_the_groups():
    run = facts({"learning_rate": ([0, 10], [[0.1, 0.5], [0.2, 0.05]], ("0", "1"))})
    assert run.learning_rate.value.tolist() == [0.5, 0.2]


def test_the_learning_rate_of_the_start_serves_where_it_was_not_measured():
    run = facts({}, {"optimizer": {"class": "SGD", "groups": [{"lr": 0.1, "momentum": 0.9}]}})
    assert run.learning_rate.value.tolist() == [0.1]
    assert (run.optimizer["class"], run.optimizer["momentum"]) == ("SGD", 0.9)


def test_a_run_that_recorded_nothing_of_itself_has_no_facts():
    run = RunFacts(MemorySource({}))
    assert not run.learning_rate
    assert (run.optimizer, run.chance_loss, run.num_classes, run.loss_kind, run.last_step) == ({}, None, None, None, 0)


def test_the_task_is_what_the_chance_level_says():
    run = facts({}, last_details={"chance.loss": {"loss": "cross-entropy"}})
    assert run.chance_loss == pytest.approx(np.log(10))
    assert (run.num_classes, run.chance_accuracy, run.loss_kind) == (10, 0.1, "cross-entropy")


def test_training_losses_are_told_by_their_names():
    names = {"train_loss": 0, "batch_loss": 0, "Loss": 0, "val_loss": 0, "test-loss": 0, "loss.train": 0, "accuracy": 0}
    run = facts({name: ([0], [1.0]) for name in names})
    assert run.logged_losses == ("Loss", "batch_loss", "train_loss")


def test_the_last_step_is_that_of_the_newest_loss_or_norm():
    assert facts({"loss.train": ([0, 70], [1.0, 1.0])}).last_step == 70
    assert facts({"weights.norm.value": ([0, 30], [[1.0], [1.0]], ("w",))}).last_step == 30
