"""Softmax collapse: exact zeros with a net that has not generalised, and zeros of easy samples."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.run_facts import Unmeasured
from trainvitals.verdicts.softmax_collapse import SoftmaxCollapse

ZEROS = np.clip((STEPS - 600) / 1000, 0, 1)


def run(zeros=ZEROS, gap=-0.9, norm=1.5, without=(), **series):
    series = {
        "softmax_collapse": (STEPS, zeros), "gap.accuracy": (STEPS, np.full(len(STEPS), gap)),
        "weights.norm.value": (STEPS, np.linspace(5, 5 * norm, len(STEPS))[:, None], ("w",)), **series,
    }  # fmt: skip
    return facts({name: value for name, value in series.items() if name not in without})


@pytest.mark.parametrize("other", [{"gap": -0.9}, {"gap": 0.0, "norm": 6.0}], ids=["not generalised", "grown weights"])
def test_zeros_with_another_sign_are_an_alarm_since_they_appeared(other):
    judgement = SoftmaxCollapse().judge(run(**other))
    assert judgement.state == VerdictState.ALARM
    assert 500 <= judgement.since <= 800


def test_a_gradient_that_only_scales_the_weights_is_another_sign():
    nlm = (STEPS, np.full((len(STEPS), 1), 0.6), ("w",))
    assert SoftmaxCollapse().judge(run(gap=-0.05, **{"grad.nlm": nlm})).state == VerdictState.ALARM


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_zeros_of_a_net_that_has_generalised_are_healthy(share):
    assert SoftmaxCollapse().judge(run(share * ZEROS, gap=-0.02)).state == VerdictState.HEALTHY


def test_zeros_after_a_jump_of_the_weights_are_another_condition():
    norm = (STEPS, np.where(STEPS < 600, 5.0, 80.0)[:, None], ("w",))
    assert SoftmaxCollapse().judge(run(**{"weights.norm.value": norm})).state == VerdictState.HEALTHY


def test_a_net_behind_on_held_out_data_without_zeros_is_another_thing():
    assert SoftmaxCollapse().judge(run(zeros=0.01 + 0.005 * white(len(STEPS)))).state == VerdictState.HEALTHY


def test_it_is_unknown_without_the_share_and_less_sure_without_a_held_out_set():
    with pytest.raises(Unmeasured, match="softmax_collapse"):
        SoftmaxCollapse().judge(run(without=("softmax_collapse",)))
    assert SoftmaxCollapse().judge(run(without=("gap.accuracy",))).missing == ("gap.accuracy: not measured",)


@pytest.mark.parametrize("seed", range(3))
def test_a_replay_does_not_flicker(seed):
    noisy = run(np.clip(ZEROS + 0.02 * white(len(STEPS), seed), 0, 1))
    seen = states_of_a_replay(SoftmaxCollapse(), noisy, STEPS[6:])
    assert seen == [VerdictState.HEALTHY, VerdictState.ALARM]
