"""Loss of plasticity: tasks that end worse and worse with a net that changes, and tasks that are learned as before."""

import numpy as np
import pytest
from synthetic_series import FIRED, facts, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.plasticity_loss import PlasticityLoss, risen_floor
from trainvitals.verdicts.run_facts import Unmeasured

STEPS = np.arange(0, 4000, 10)
RARE = STEPS[::5]
TIME = RARE / RARE[-1]


def tasks(ends, length=40, seed=0):
    """A loss that falls anew in every task, to the end given for it."""
    t = np.arange(length)
    parts = [end + (2.3 - end) * np.exp(-t / 10) for end in ends]
    loss = np.concatenate(parts)
    return loss * (1 + 0.02 * white(len(loss), seed))


WORSE, AS_WELL = tasks(np.linspace(0.8, 2.0, 10)), tasks(np.full(10, 0.8))


def run(loss, *, dead=0.6, rank=0.3, norm=3.0, name="train_loss", without=()):
    """Units, rank and weights go linearly to these values."""
    series = {
        "loss.train": (STEPS, np.full(len(STEPS), 2.3)), name: (STEPS, loss),
        "units.dead": (RARE, (0.1 + (dead - 0.1) * TIME)[:, None], ("relu",)),
        "rank.effective": (RARE, 30 * (1 + (rank - 1) * TIME)),
        "weights.norm.value": (RARE, (5 * (1 + (norm - 1) * TIME))[:, None], ("w",)),
    }  # fmt: skip
    return facts({key: value for key, value in series.items() if key not in without})


def test_tasks_that_end_worse_with_units_rank_and_weights_are_an_alarm():
    judgement = PlasticityLoss().judge(run(WORSE))
    assert judgement.state == VerdictState.ALARM
    assert 0 <= judgement.since <= 2500


def test_the_fixed_probe_serves_where_nothing_is_logged():
    assert PlasticityLoss().judge(run(WORSE, name="loss.train")).state == VerdictState.ALARM


def test_tasks_that_are_learned_as_well_as_before_are_healthy_whatever_the_net_looks_like():
    assert PlasticityLoss().judge(run(AS_WELL)).state == VerdictState.HEALTHY


def test_tasks_that_end_worse_in_a_net_that_did_not_change_are_harder_tasks():
    assert PlasticityLoss().judge(run(WORSE, dead=0.12, rank=0.9, norm=1.1)).state == VerdictState.HEALTHY


def test_weights_thrown_far_away_are_another_condition():
    assert PlasticityLoss().judge(run(WORSE, norm=40.0)).state == VerdictState.HEALTHY


def test_it_takes_two_measures_of_the_net():
    found = run(WORSE, without=("rank.effective",))
    assert PlasticityLoss().judge(found).missing == ("units.dormant: not measured", "rank.effective: not measured")
    with pytest.raises(Unmeasured):
        PlasticityLoss().judge(run(WORSE, without=("rank.effective", "units.dead")))


def test_the_floor_rises_only_with_the_lowest_loss_of_late():
    loss = np.concatenate([np.full(100, 1.0), np.full(10, 5.0), np.full(100, 1.0), np.full(100, 2.0)])
    risen = risen_floor(loss)
    assert risen[:210].max() == 0
    assert risen[-1] == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_does_not_flicker(seed):
    healthy = run(tasks(np.full(10, 0.8), seed=seed))
    assert states_of_a_replay(PlasticityLoss(), healthy, RARE[10:]) == [VerdictState.HEALTHY]
    seen = states_of_a_replay(PlasticityLoss(), run(tasks(np.linspace(0.8, 2.0, 10), seed=seed)), RARE[10:])
    assert seen[0] == VerdictState.HEALTHY
    assert seen[-1] in FIRED
    assert len(seen) == 2
