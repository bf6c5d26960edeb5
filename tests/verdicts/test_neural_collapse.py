"""Neural collapse: all four properties with the data fitted, and look-alikes that have some of them."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.neural_collapse import NeuralCollapse
from trainvitals.verdicts.run_facts import Unmeasured

RARE = STEPS[::2]
FALL = np.exp(-RARE / 300)
ENDS = {"nc1": 0.02, "nc2.norms_means": 0.03, "nc2.angles_means": 0.03, "nc3": 0.05, "nc4": 0.0}


def run(accuracy=1.0, without=(), seed=0, **ends):
    series = {
        name: (RARE, (ends.get(name.replace(".", "_"), end) + FALL) * (1 + 0.05 * white(len(RARE), seed)))
        for name, end in ENDS.items() if name not in without
    }  # fmt: skip
    series["accuracy.train"] = (STEPS, np.minimum(accuracy, 0.1 + STEPS / 500))
    return facts({name: value for name, value in series.items() if name not in without})


def test_all_properties_together_are_worth_knowing():
    judgement = NeuralCollapse().judge(run())
    assert judgement.state == VerdictState.WATCH
    assert 300 <= judgement.since <= 1200
    assert NeuralCollapse.is_informational


SOME = {"spread": {"nc1": 0.5}, "not fitted": {"accuracy": 0.9}, "no simplex": {"nc2_angles_means": 0.4, "nc3": 0.9}}


@pytest.mark.parametrize("ends", SOME.values(), ids=SOME)
def test_a_net_that_has_only_some_of_them_has_not_collapsed(ends):
    assert NeuralCollapse().judge(run(**ends)).state == VerdictState.HEALTHY


def test_one_property_of_geometry_may_be_off():
    assert NeuralCollapse().judge(run(nc2_norms_means=0.5)).state == VerdictState.WATCH


def test_it_is_unknown_without_nc1_or_with_one_other_property_only():
    with pytest.raises(Unmeasured, match="nc1"):
        NeuralCollapse().judge(run(without=("nc1",)))
    with pytest.raises(Unmeasured):
        NeuralCollapse().judge(run(without=("nc2.norms_means", "nc2.angles_means", "nc3")))


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_does_not_flicker(seed):
    assert len(states_of_a_replay(NeuralCollapse(), run(seed=seed), RARE[6:])) == 2
