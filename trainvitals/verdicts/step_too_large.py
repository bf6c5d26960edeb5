"""The step is too large: progress is lost or never made, and the steps themselves show why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.loss_course import LossCourse, loss_course
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.spikes import find_spikes
from trainvitals.verdicts.weigh import Weighed, weigh
from trainvitals.verdicts.weight_course import largest_growth, largest_jump

_COHEN = "Cohen et al. 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability"
_GILMER = "Gilmer et al. 2022, A Loss Curvature Perspective on Training Instability in Deep Learning"
_CHOWDHERY = "Chowdhery et al. 2023, PaLM: Scaling Language Modeling with Pathways, section 5.1"
_KARPATHY = "Karpathy 2015, CS231n notes on babysitting the learning process: updates near 1e-3 of the weights"
_BANK = "measured on the bank of labelled runs, setting half"
_OF_STEPS = ("stability.ratio", "grad.successive.gradient", "update.ratio", "weights.norm.value")
_LEARNED = 0.8  # of the loss of guessing: below it something was learned


class StepTooLarge(Condition):
    """The train loss has lost its progress, or never made any; curvature, direction or size of the steps say why."""

    id = "step_too_large"
    title = "Step too large"
    says = "The optimiser jumps too far: the loss blows up, bounces, or never gets below what guessing reaches."
    reads = (
        "loss.train", "chance.loss", "stability.ratio", "grad.successive.gradient", "update.ratio",
        "weights.norm.value",
    )  # fmt: skip
    source = _GILMER
    follows = ("attention_logit_growth",)
    precedence = 10
    advice = (
        Advice("Lower the learning rate by a factor of 3 to 10.", _COHEN),
        Advice("Warm the learning rate up over the first few hundred steps.", _GILMER),
        Advice("Clip the gradient norm.", "Pascanu, Mikolov, Bengio 2013, On the difficulty of training RNNs"),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `alarm` when the loss and at least one property of the steps agree."""
        course = loss_course(run)
        losses, steps = _loss_signs(course), _step_signs(run, course)
        absent = [name for name in _OF_STEPS if name not in run.names]
        missing = [run.why_missing(name) for name in absent] if len(absent) > 2 else []
        found = weigh([*losses, *steps], watch=2, alarm=2, leading=losses)
        since = _since(course, found)
        once = since is not None and _blew_up_once(course, since)
        head = "A step was far too large, and its damage is not undone" if once else "The steps are too large"
        judgement = found.judgement(head, "The loss goes down with these steps", missing)
        if since is None or not once:
            return replace(judgement, since=since)
        began = _first_leap(run, course, since)
        back = Advice(f"Restore a checkpoint from before step {began:,}, look at the batch of that step, and train "
                      f"on with "
                      "a smaller learning rate.", _CHOWDHERY)  # fmt: skip
        return replace(judgement, since=since, advice=(back, *self.advice))


def _blew_up_once(course: LossCourse, since: int) -> bool:
    """Return whether the net had learned something before, and the loss does not bounce."""
    before = course.loss.step < since
    return bool(before.any()) and float(course.level[before].min()) < _LEARNED and float(course.bounces[-1]) < 1.0


def _since(course: LossCourse, found: Weighed) -> int | None:
    """Return the first step if nothing was ever learned, else where the earliest of the signs began."""
    if found.since is None:
        return None
    if course.level.min() > _LEARNED:
        return int(course.loss.step[0])
    return min(sign.since for sign in found.holding if sign.since is not None)


def _first_leap(run: RunFacts, course: LossCourse, since: int) -> int:
    """Return where a logged loss leapt up in the last two measurements before, or else the step itself."""
    apart = int(np.median(np.diff(course.loss.step)))
    logged = (find_spikes(run.every_point(name), course.reference, is_batch=True) for name in run.logged_losses)
    near = [spike.step for spikes in logged for spike in spikes if since - 2 * apart <= spike.step <= since]
    return min(near, default=since)


def _loss_signs(course: LossCourse) -> list[Sign]:
    loss = course.loss
    settled = np.arange(len(loss)) >= 5  # a start above chance takes a few measurements to come down
    return [
        Sign(loss.with_values(course.lost), 0.5, ABOVE, _BANK,
             "{value:part} of the progress of the train loss is lost again",
             release=0.25, reliability=0.6, kind="loss",
             quantity="share of the progress that was lost"),
        Sign(loss.with_values(np.where(settled, course.level, 0.0)), 0.9, ABOVE, course.reference_source,
             "the train loss is at {value:share} of that of guessing", release=_LEARNED, patience=4, reliability=0.5,
             kind="loss", quantity="loss over that of guessing"),
        Sign(loss.with_values(course.bounces), 1.0, ABOVE, _BANK,
             "the rises of the last 8 measurements add up to {value} times the loss of guessing",
             release=0.6, reliability=0.6, kind="loss",
             quantity="rises of the last 8 measurements over the loss of guessing"),
    ]  # fmt: skip


def _step_signs(run: RunFacts, course: LossCourse) -> list[Sign]:
    ratio, cosine = run.series("stability.ratio"), run.series("grad.successive.gradient")
    update = run.layers("update.ratio").median()
    late = update.since(int(update.step[2]) if len(update) > 5 else None)
    return [
        Sign(ratio, 2.0, ABOVE, _COHEN, "the sharpness is {value} times the largest that this step size bears",
             release=1.3, patience=2),
        Sign(cosine, -0.5, BELOW, "Xing et al. 2018, A Walk with SGD",
             "successive gradients point against each other, with a cosine of {value}", release=-0.3),
        Sign(late, 0.1, ABOVE, _KARPATHY, "each step changes the weights by {value:share}", release=0.05),
        Sign(course.loss.with_values(course.peak), 3.0, ABOVE, _BANK,
             "the train loss shot up to {value} times its start",
             patience=1, starts="crossing", quantity="largest loss so far over its start", once=True),
        Sign(largest_growth(run), 10.0, ABOVE, _BANK,
             "the weights were thrown to {value} times their size at the start",
             patience=1, starts="crossing", kind="weights", quantity="largest growth of all weights so far",
             once=True),
        Sign(largest_jump(run), 2.0, ABOVE, _BANK, "the weights grew {value} times in one jump", patience=1,
             starts="crossing", kind="weights", quantity="largest growth of all weights between two measurements",
             once=True),
    ]  # fmt: skip
