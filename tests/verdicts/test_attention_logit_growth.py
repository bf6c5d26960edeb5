"""Attention logits: growth with lost entropy or progress, and logits that are large in good health."""

import numpy as np
import pytest
from synthetic_series import FIRED, STEPS, facts, learned, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.attention_logit_growth import AttentionLogitGrowth
from trainvitals.verdicts.run_facts import Unmeasured

RARE = STEPS[::2]
EXPLODES = np.geomspace(5, 20_000, len(RARE))
STUCK = np.full(len(STEPS), 1.9)


def run(logits, entropy=None, loss=None, without=()):
    entropy = np.full(len(RARE), 2.0) if entropy is None else entropy
    series = {
        "attention.max_logit": (RARE, np.stack([np.full(len(RARE), 6.0), logits], 1), ("block0", "block1")),
        "attention.entropy": (RARE, np.stack([np.full(len(RARE), 2.0), entropy], 1), ("block0", "block1")),
        "loss.train": (STEPS, learned() if loss is None else loss),
    }
    return facts({name: value for name, value in series.items() if name not in without})


@pytest.mark.parametrize(
    "more", [{"loss": STUCK}, {"entropy": np.geomspace(2.0, 0.01, len(RARE))}], ids=["stuck", "entropy lost"]
)
def test_logits_that_explode_with_another_sign_are_an_alarm(more):
    judgement = AttentionLogitGrowth().judge(run(EXPLODES, **more))
    assert judgement.state == VerdictState.ALARM
    assert "block1" in judgement.summary
    assert 0 <= judgement.since <= judgement.noticed <= 1200


def test_logits_that_stay_moderate_are_healthy():
    assert AttentionLogitGrowth().judge(run(np.geomspace(5, 40, len(RARE)), loss=STUCK)).state == VerdictState.HEALTHY


def test_large_logits_that_were_there_from_the_start_and_learn_are_healthy():
    assert AttentionLogitGrowth().judge(run(150 + white(len(RARE)))).state == VerdictState.HEALTHY


def test_without_attention_it_is_unknown_and_without_the_rest_less_sure():
    with pytest.raises(Unmeasured, match=r"attention\.max_logit"):
        AttentionLogitGrowth().judge(run(EXPLODES, without=("attention.max_logit",)))
    alone = AttentionLogitGrowth().judge(run(EXPLODES, without=("attention.entropy", "loss.train")))
    assert alone.state == VerdictState.WATCH
    assert len(alone.missing) == 2


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_does_not_flicker(seed):
    noisy = run(30 * np.exp(0.3 * white(len(RARE), seed)), loss=STUCK)
    assert states_of_a_replay(AttentionLogitGrowth(), noisy, RARE[6:]) == [VerdictState.HEALTHY]
    seen = states_of_a_replay(AttentionLogitGrowth(), run(EXPLODES, loss=STUCK), RARE[6:])
    assert seen[0] == VerdictState.HEALTHY
    assert seen[-1] in FIRED
    assert len(seen) <= 3


def test_logits_that_stand_grew_and_logits_that_go_on_grow():
    entropy = np.geomspace(2.0, 0.01, len(RARE))
    stood = np.where(RARE < 1000, np.geomspace(5, 1000, len(RARE)), 5000.0)
    told = AttentionLogitGrowth().judge(run(stood, entropy=entropy)).head
    assert told == "The attention logits of layer block1 grew, and have stood at about 5,000 since step 1,000."
    assert AttentionLogitGrowth().judge(run(EXPLODES, entropy=entropy)).head.endswith("of layer block1 grow.")
