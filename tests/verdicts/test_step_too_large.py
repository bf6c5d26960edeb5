"""Steps too large: losses that lose their progress with a reason in the steps, and look-alikes without one."""

import numpy as np
import pytest
from synthetic_series import CHANCE, STEPS, facts, learned, states_of_a_replay, white

from trainvitals.schema import VerdictState
from trainvitals.verdicts.run_facts import Unmeasured
from trainvitals.verdicts.step_too_large import StepTooLarge

RARE = STEPS[::5]
KEYS = ("w", "b")


def run(loss, *, ratio=0.3, cosine=0.1, update=1e-3, norm=None, without=(), **more):
    norm = np.full(len(STEPS), 5.0) if norm is None else norm
    series = {
        "loss.train": (STEPS, loss),
        "stability.ratio": (RARE, np.broadcast_to(ratio, len(RARE))),
        "grad.successive.gradient": (STEPS, np.broadcast_to(cosine, len(STEPS)) + 0.05 * white(len(STEPS))),
        "update.ratio": (STEPS, np.full((len(STEPS), 2), update), KEYS),
        "weights.norm.value": (STEPS, np.stack([norm, 0.1 * norm], 1), KEYS),
    }
    return facts({name: value for name, value in series.items() if name not in without}, **more)


def stuck(seed=0):
    return CHANCE * (1 + 0.02 * np.abs(white(len(STEPS), seed)))


def blown_up_at(index):
    loss = learned()
    loss[index:] = 2.5 * np.exp(0.1 * white(len(STEPS) - index))
    return loss


def test_a_healthy_run_is_healthy():
    assert StepTooLarge().judge(run(learned())).state == VerdictState.HEALTHY


THROWN = np.geomspace(5, 200, len(STEPS))


@pytest.mark.parametrize(
    "steps", [{"ratio": 4.0}, {"cosine": -0.8}, {"update": 0.3}, {"norm": THROWN}], ids=lambda steps: next(iter(steps))
)
def test_a_loss_at_chance_with_any_reason_in_the_steps_is_an_alarm_from_the_start(steps):
    judgement = StepTooLarge().judge(run(stuck(), **steps))
    assert judgement.state == VerdictState.ALARM
    assert judgement.since == 0
    assert len([e for e in judgement.evidence if e.holds]) >= 2


def test_progress_lost_in_the_middle_began_there():
    norm = np.full(len(STEPS), 5.0)
    norm[50:] = 90.0
    judgement = StepTooLarge().judge(run(blown_up_at(50), norm=norm))
    assert judgement.state == VerdictState.ALARM
    assert abs(judgement.since - STEPS[50]) <= 40
    assert judgement.noticed - STEPS[50] <= 120


def test_a_loss_that_bounces_against_the_steps_is_one():
    loss = 1.2 + 0.9 * np.sign(white(len(STEPS)))
    assert StepTooLarge().judge(run(loss, cosine=-0.9)).state == VerdictState.ALARM


def test_a_loss_at_chance_without_a_reason_in_the_steps_is_not_this():
    assert StepTooLarge().judge(run(stuck())).state == VerdictState.HEALTHY


def test_the_edge_of_stability_with_a_falling_loss_is_not_this():
    assert StepTooLarge().judge(run(learned(noise=0.2), ratio=1.2, cosine=-0.8)).state == VerdictState.HEALTHY


def test_a_start_above_the_threshold_that_comes_down_is_not_this():
    ratio = 0.4 + 15 * np.exp(-np.arange(len(RARE)))
    loss = learned(start=40.0, over=30.0)
    assert StepTooLarge().judge(run(loss, ratio=ratio)).state == VerdictState.HEALTHY


def test_one_spike_that_recovers_is_not_this():
    loss = learned()
    loss[60] = 30.0
    assert StepTooLarge().judge(run(loss)).state == VerdictState.HEALTHY


def test_a_new_task_raises_the_loss_and_is_not_this():
    loss = np.concatenate([learned(STEPS[:50]), learned(STEPS[:50])])
    assert StepTooLarge().judge(run(loss)).state == VerdictState.HEALTHY


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_unit_of_the_loss_does_not_matter(scale):
    series = {"chance.loss": ([0], [CHANCE * scale])}
    for loss, state in ((learned(), VerdictState.HEALTHY), (stuck(), VerdictState.ALARM)):
        found = run(scale * loss, ratio=4.0)
        found._source.series["chance.loss"] = series["chance.loss"]
        assert StepTooLarge().judge(found).state == state


def test_without_a_chance_level_the_loss_of_the_start_is_the_reference():
    assert StepTooLarge().judge(run(stuck(), ratio=4.0, chance=False)).state == VerdictState.ALARM
    assert StepTooLarge().judge(run(learned(), chance=False)).state == VerdictState.HEALTHY


def test_without_a_loss_it_is_unknown_and_without_measures_of_the_steps_less_sure():
    with pytest.raises(Unmeasured, match=r"loss\.train"):
        StepTooLarge().judge(run(learned(), without=("loss.train",)))
    bare = run(learned(), without=("stability.ratio", "grad.successive.gradient", "update.ratio", "weights.norm.value"))
    judgement = StepTooLarge().judge(bare)
    assert judgement.missing
    assert judgement.confidence < StepTooLarge().judge(run(learned())).confidence


def test_a_loss_that_starts_below_zero_has_no_scale():
    with pytest.raises(Unmeasured, match="not positive"):
        StepTooLarge().judge(run(-learned(), chance=False))


@pytest.mark.parametrize("seed", range(5))
def test_a_replay_point_by_point_does_not_flicker(seed):
    healthy = run(learned(noise=0.1, seed=seed), ratio=0.9)
    assert states_of_a_replay(StepTooLarge(), healthy, STEPS[10:]) == [VerdictState.HEALTHY]
    sick = states_of_a_replay(StepTooLarge(), run(blown_up_at(40), ratio=3.0), STEPS[10:])
    assert sick == [VerdictState.HEALTHY, VerdictState.ALARM]


def test_the_step_of_the_leap_is_that_of_the_finest_series_and_the_batches_are_told_from_it():
    norm = np.full(len(STEPS), 5.0)
    norm[50:] = 90.0
    every = np.arange(0, 2000)
    logged = 0.5 + 0.01 * white(len(every))
    logged[983:990] = 60.0
    facts_ = {"loss.train": (STEPS, blown_up_at(50)), "weights.norm.value": (STEPS, np.stack([norm, norm], 1), KEYS),
              "stability.ratio": (RARE, np.full(len(RARE), 0.3))}  # fmt: skip
    coarse = StepTooLarge().judge(facts(facts_))
    assert coarse.since == 1000
    assert "from before step 1,000 and look at the batches from step 980 to step 1,000" in coarse.advice[0].text
    assert coarse.summary.startswith("A step was far too large")
    rate = (STEPS, np.full((len(STEPS), 1), 2.4), ("0",))
    fine = StepTooLarge().judge(facts({**facts_, "batch_loss": (every, logged), "learning_rate": rate}))
    assert fine.since == 983
    assert "the batches of steps 982 and 983" in fine.advice[0].text
    assert "the learning rate did not leap (2.4 before, 2.4 after)" in fine.advice[0].text
    kicked = (STEPS, np.where(STEPS < 990, 0.03, 2.4)[:, None], ("0",))
    raised = StepTooLarge().judge(facts({**facts_, "batch_loss": (every, logged), "learning_rate": kicked}))
    assert raised.summary.startswith("The learning rate leapt from 0.03 at step 980 to 2.4 at step 1,000, and ")
    assert raised.advice[0].text.endswith("and train on with the learning rate that it had, 0.03.")


def test_a_loss_that_comes_down_again_is_told_so():
    norm, loss = np.full(len(STEPS), 5.0), learned()
    norm[50:] = 90.0
    loss[50:] = np.linspace(2.5, 1.5, len(loss) - 50)
    assert "the loss is coming down again" in StepTooLarge().judge(run(loss, norm=norm)).head
    assert "its damage is not undone" in StepTooLarge().judge(run(blown_up_at(50), norm=norm)).head
