"""NaN and Inf: seen in losses, weights and gradients, with the first step and layer; once and for good."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts, learned

from trainvitals.schema import VerdictState
from trainvitals.verdicts.non_finite import NonFinite
from trainvitals.verdicts.run_facts import Unmeasured

NORMS = np.ones((len(STEPS), 2))


def judged(loss=None, norms=NORMS, **series):
    loss = learned() if loss is None else loss
    run = facts({"loss.train": (STEPS, loss), "weights.norm.value": (STEPS, norms, ("w", "v")), **series},
                last_details={"first_bad": {"first_weights": "v", "step": 390}})  # fmt: skip
    return NonFinite().judge(run)


def test_numbers_throughout_are_healthy():
    assert judged().state == VerdictState.HEALTHY


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_stays_bad_is_an_alarm_since_its_first_step(bad):
    loss = learned()
    loss[30:] = bad
    judgement = judged(loss)
    assert judgement.state == VerdictState.ALARM
    assert (judgement.since, judgement.evidence[0].metric) == (STEPS[30], "loss.train")


def test_weights_tell_the_layer():
    norms = NORMS.copy()
    norms[20:, 1] = np.nan
    judgement = judged(norms=norms)
    assert judgement.state == VerdictState.ALARM
    assert judgement.since == STEPS[20]
    assert "first in v" in judgement.summary


def test_the_earliest_of_all_is_the_first():
    loss = learned()
    loss[30:] = np.nan
    dense = np.arange(0, 2000)
    logged = np.ones(len(dense))
    logged[597:] = np.nan
    counts = (STEPS, np.outer(STEPS > 590, [1.0, 0.0]), ("weights", "layers"))
    judgement = judged(loss, train_loss=(dense, logged), first_bad=counts)
    assert judgement.since == 390  # what first_bad remembers
    assert "v" in judgement.summary


def test_a_loss_that_came_back_is_to_be_watched():
    loss = learned()
    loss[30:32] = np.inf
    judgement = judged(loss)
    assert judgement.state == VerdictState.WATCH
    assert "came back" in judgement.summary


def test_a_layer_that_has_no_value_at_some_steps_is_not_nan():
    from trainvitals.verdicts.source import Raw

    run = facts({"loss.train": (STEPS, learned())})
    absent = np.zeros((len(STEPS), 2), bool)
    absent[10:, 1] = True
    values = np.where(absent, np.nan, 1.0)
    run._vectors["update.ratio"] = Raw(STEPS, values, ("w", "v"), absent)
    assert NonFinite().judge(run).state == VerdictState.HEALTHY


def test_nothing_measured_is_unknown():
    with pytest.raises(Unmeasured):
        NonFinite().judge(facts({}))
