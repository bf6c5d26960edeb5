"""Dead units: many of them with something that shows that it matters, and layers that do without."""

import numpy as np
import pytest
from synthetic_series import FIRED, STEPS, facts, learned, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.dead_units import DeadUnits
from trainvitals.verdicts.run_facts import Unmeasured

RARE = STEPS[::2]


def run(share, rank=20.0, loss=None):
    share = np.broadcast_to(share, len(RARE))
    series = {
        "units.dead": (RARE, np.stack([np.full(len(RARE), 0.05), share], 1), ("relu1", "relu2")),
        "loss.train": (STEPS, learned() if loss is None else loss),
    }
    if rank is not None:
        series["rank.effective"] = (RARE, np.broadcast_to(rank, len(RARE)))
    return facts(series)


DIED = np.where(RARE < 1000, 0.1, 0.8)


def test_units_that_die_in_the_middle_and_take_rank_with_them_are_an_alarm_since_then():
    judgement = DeadUnits().judge(run(DIED, rank=np.where(RARE < 1000, 20.0, 8.0)))
    assert judgement.state == VerdictState.ALARM
    assert abs(judgement.since - 1000) <= 40
    assert judgement.noticed - judgement.since <= 120
    assert "layer relu2" in judgement.summary


@pytest.mark.parametrize("rank", [None, 20.0])
def test_units_that_die_in_the_middle_are_to_be_watched_without_more(rank):
    assert DeadUnits().judge(run(DIED, rank)).state == VerdictState.WATCH


def test_a_dead_layer_at_chance_from_the_start_is_an_alarm():
    loss = np.full(len(STEPS), 2.31)
    assert DeadUnits().judge(run(0.97, loss=loss)).state == VerdictState.ALARM


@pytest.mark.parametrize("share", [0.1, 0.3, np.linspace(0.02, 0.15, len(RARE))])
def test_a_share_that_is_usual_is_healthy(share):
    assert DeadUnits().judge(run(share)).state == VerdictState.HEALTHY


def test_a_narrow_layer_that_settled_in_the_first_steps_and_learns_on_is_healthy():
    share = np.where(RARE < 80, 0.1, 0.65)
    found = run(share, rank=np.linspace(4, 9, len(RARE)))
    assert states_of_a_replay(DeadUnits(), found, RARE[12:]) == [VerdictState.HEALTHY]


def test_the_rank_that_every_net_loses_early_is_no_sign():
    share = np.where(RARE < 200, 0.1, 0.4)
    rank = np.clip(40 - RARE / 5, 16, None)
    assert DeadUnits().judge(run(share, rank)).state == VerdictState.HEALTHY


def test_units_that_come_back_are_not_dead():
    share = np.where((RARE > 600) & (RARE < 1000), 0.8, 0.1)
    assert DeadUnits().judge(run(share)).state == VerdictState.HEALTHY


def test_without_the_share_it_is_unknown():
    with pytest.raises(Unmeasured, match=r"units\.dead"):
        DeadUnits().judge(facts({"loss.train": (STEPS, learned())}))


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_does_not_flicker(seed):
    noisy = run(0.3 + 0.03 * white(len(RARE), seed))
    assert states_of_a_replay(DeadUnits(), noisy, RARE[6:]) == [VerdictState.HEALTHY]
    dying = run(np.clip(RARE / 1500, 0.05, 0.9) + 0.02 * white(len(RARE), seed), np.clip(25 - RARE / 100, 4, None))
    seen = states_of_a_replay(DeadUnits(), dying, RARE[6:])
    assert seen[0] == VerdictState.HEALTHY
    assert seen[-1] in FIRED
    assert len(seen) <= 3


def test_the_number_of_layers_is_told_where_more_than_one_is_dead():
    share = np.where(RARE < 1000, 0.1, 0.8)
    both = facts({"units.dead": (RARE, np.stack([share, share + 0.1], 1), ("relu1", "relu2")),
                  "loss.train": (STEPS, learned())})  # fmt: skip
    summary = DeadUnits().judge(both).summary
    assert summary.startswith("In 2 of 2 layers more than half of the units are dead; in the worst, layer relu2, 90")
    assert "risen from 20 % at step 360 (a fifth of the run so far) to 90 %, by 70 percentage points" in summary
    one = DeadUnits().judge(run(DIED, rank=np.where(RARE < 1000, 20.0, 8.0)))
    assert one.summary.startswith("Units of layer relu2")
