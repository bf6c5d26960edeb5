"""Weight norms: all or one out of proportion, and growth that is usual, ends, or is a jump."""

import numpy as np
import pytest
from synthetic_series import FIRED, STEPS, facts, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.run_facts import Unmeasured
from trainvitals.verdicts.weight_norm_growth import WeightNormGrowth

KEYS = ("a", "b", "c", "d", "bias")
TIME = STEPS / STEPS[-1]


def run(all_to=1.5, one_to=None, curve=None, noise=0.0, seed=0, **series):
    """Weights that grow to these factors, on a curve from 0 to 1; a small bias grows thirtyfold, as biases do."""
    curve = TIME if curve is None else curve
    norms = np.outer(1 + (all_to - 1) * curve, [5.0, 4.0, 3.0, 6.0, 0.05])
    norms[:, 4] *= 1 + 30 * curve
    if one_to is not None:
        norms[:, 1] = 4.0 * (1 + (one_to - 1) * curve)
    norms *= 1 + noise * white(len(STEPS), seed)[:, None]
    return facts({"weights.norm.value": (STEPS, norms, KEYS), **series})


def test_weights_that_grow_and_grow_are_an_alarm():
    judgement = WeightNormGrowth().judge(run(all_to=8.0))
    assert judgement.state == VerdictState.ALARM
    assert judgement.since <= 400


def test_weights_that_have_grown_more_than_tenfold_are_one_even_when_they_stop():
    assert WeightNormGrowth().judge(run(15.0, curve=np.minimum(1, 10 * TIME))).state == VerdictState.ALARM


def test_one_tensor_that_leaves_the_others_behind_is_an_alarm_since_it_did():
    judgement = WeightNormGrowth().judge(run(1.2, one_to=40.0, curve=np.clip((STEPS - 800) / 1000, 0, 1)))
    assert judgement.state == VerdictState.ALARM
    assert abs(judgement.since - 800) <= 100
    assert judgement.summary.startswith("b grew")


def test_one_tensor_that_grows_fourfold_when_training_is_under_way_is_an_outlier():
    scores = np.outer(STEPS > 1000, [0.0, 20.0, 0.1, 0.2, 0.1])
    outlier = {"weights.norm.outlier": (STEPS, scores, KEYS)}
    found = run(1.1, one_to=4.0, curve=np.clip((STEPS - 900) / 400, 0, 1), **outlier)
    assert WeightNormGrowth().judge(found).state == VerdictState.ALARM


@pytest.mark.parametrize("to", [1.0, 1.5, 3.0])
def test_usual_growth_is_healthy(to):
    assert WeightNormGrowth().judge(run(to)).state == VerdictState.HEALTHY


def test_growth_from_a_small_start_that_ends_is_healthy():
    assert WeightNormGrowth().judge(run(6.0, curve=np.minimum(1, 8 * TIME))).state == VerdictState.HEALTHY


def test_weights_that_start_next_to_nothing_have_to_grow():
    found = run(200.0)
    assert WeightNormGrowth().judge(found).state == VerdictState.ALARM
    found._source.meta["model"] = {"num_trainable": 10**11}  # a norm of 9 at the start is a weight of 3e-5
    assert WeightNormGrowth().judge(found).state == VerdictState.HEALTHY


def test_a_jump_is_another_condition():
    assert WeightNormGrowth().judge(run(30.0, curve=(TIME > 0.5) * 1.0)).state == VerdictState.HEALTHY


def test_a_tensor_that_stays_while_decay_shrinks_the_others_has_not_grown():
    assert WeightNormGrowth().judge(run(0.15, one_to=1.0)).state == VerdictState.HEALTHY


def test_few_measurements_are_unknown():
    with pytest.raises(Unmeasured, match="3 of 8"):
        WeightNormGrowth().judge(run(8.0).until(int(STEPS[2])))


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_does_not_flicker(seed):
    assert states_of_a_replay(WeightNormGrowth(), run(3.0, noise=0.02, seed=seed), STEPS[8:]) == [VerdictState.HEALTHY]
    seen = states_of_a_replay(WeightNormGrowth(), run(12.0, noise=0.02, seed=seed), STEPS[8:])
    assert seen[0] == VerdictState.HEALTHY
    assert seen[-1] in FIRED
    assert len(seen) == 2
