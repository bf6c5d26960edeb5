"""The edge of stability: hovering at 1 is told from passing through, from staying below, and from blowing up."""

import numpy as np
import pytest
from synthetic_series import facts, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.edge_of_stability import EdgeOfStability
from trainvitals.verdicts.run_facts import Unmeasured

STEPS = np.arange(0, 3000, 100)
RISE = np.minimum(0.2 + STEPS / 1500, 1.0)  # reaches 1 at step 1200


def judged(ratio, steps=STEPS, meta=None, **series):
    return EdgeOfStability().judge(facts({"stability.ratio": (steps, ratio), **series}, meta))


@pytest.mark.parametrize("seed", range(5))
def test_hovering_at_the_threshold_is_worth_watching_since_it_got_there(seed):
    judgement = judged(RISE * (1 + 0.05 * white(len(STEPS), seed)))
    assert judgement.state == VerdictState.WATCH
    assert 800 <= judgement.since <= 1300


def test_a_sharpness_that_stays_below_is_not_there():
    assert judged(0.5 * RISE).state == VerdictState.HEALTHY


def test_passing_through_on_the_way_up_is_not_hovering():
    assert judged(np.geomspace(0.01, 100, len(STEPS))).state == VerdictState.HEALTHY


def test_falling_away_from_it_again_ends_it():
    assert judged(np.concatenate([RISE[:20], np.full(10, 0.1)])).state == VerdictState.HEALTHY


def test_under_plain_sgd_the_sharpness_of_batches_hovers():
    batch = {"batch_sharpness": (STEPS, 20 * RISE), "stability.threshold": (STEPS, np.full(len(STEPS), 20.0))}
    sgd = {"optimizer": {"class": "SGD", "groups": [{"lr": 0.1, "momentum": 0.0}]}}
    assert judged(0.3 * RISE, meta=sgd, **batch).state == VerdictState.WATCH
    momentum = {"optimizer": {"class": "SGD", "groups": [{"lr": 0.1, "momentum": 0.9}]}}
    assert judged(0.3 * RISE, meta=momentum, **batch).state == VerdictState.HEALTHY


def test_it_is_never_an_alarm_and_unknown_without_a_ratio():
    assert EdgeOfStability.is_informational
    with pytest.raises(Unmeasured, match=r"stability\.ratio"):
        EdgeOfStability().judge(facts({}))
    with pytest.raises(Unmeasured, match="2 of 4"):
        judged(RISE[:2], STEPS[:2])
