"""The step is too large: progress is lost or never made, and the steps themselves show why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.loss_course import LossCourse, level_sign, loss_course, lost_sign
from trainvitals.verdicts.rate_leap import RateAround, rate_around
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.sign import ABOVE, BELOW, LOSS_LEAPT, LOSS_LOST, WEIGHTS_GREW, Sign
from trainvitals.verdicts.spikes import batches, find_spikes
from trainvitals.verdicts.weigh import Weighed, weigh
from trainvitals.verdicts.weight_course import largest_growth, largest_jump

_COHEN = "Cohen et al. 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability"
_GILMER = "Gilmer et al. 2022, A Loss Curvature Perspective on Training Instability in Deep Learning"
_CHOWDHERY = "Chowdhery et al. 2023, PaLM: Scaling Language Modeling with Pathways, section 5.1"
_KARPATHY = "Karpathy 2015, CS231n notes on babysitting the learning process: updates near 1e-3 of the weights"
_BANK = "measured on the bank of labelled runs, setting half"
_OF_STEPS = ("stability.ratio", "grad.successive.gradient", "update.ratio", "weights.norm.value")
_ON_ITS_WAY = 5  # measurements
_LEARNED = 0.8  # of the loss of guessing: below it something was learned


class StepTooLarge(Condition):
    """The train loss has lost its progress, or never made any; curvature, direction or size of the steps say why."""

    id = "step_too_large"
    title = "Step too large"
    says = "The optimiser jumps too far: the loss blows up, bounces, or never gets below what guessing reaches."
    symptoms = (LOSS_LOST, LOSS_LEAPT)
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
        healthy = "The loss goes down with these steps"
        if since is None or not _blew_up_once(course, since):
            return replace(found.judgement("The steps are too large", healthy, missing), since=since)
        began, before = _first_leap(run, course, since)
        rate = rate_around(run, began)
        cause = f"The learning rate leapt {rate}" if rate and rate.has_leapt else "A step was far too large"
        judgement = found.judgement(f"{cause}, and {_after(course)}", healthy, missing)
        onwards = _onwards(rate, before, began)
        back = Advice(f"Restore a checkpoint from before step {began:,} and {onwards}.", _CHOWDHERY)
        return replace(judgement, since=began, advice=(back, *self.advice))


def _after(course: LossCourse) -> str:
    """Return how it goes on: a loss that fell at each of the last measurements is on its way back."""
    if np.all(np.diff(course.loss.value[-_ON_ITS_WAY:]) < 0):
        return "what it undid is not made up for yet; the loss is coming down again"
    return "its damage is not undone"


def _onwards(rate: RateAround | None, before: int, began: int) -> str:
    """Return what to do from the checkpoint on: what the leap came from decides."""
    if rate is None:
        return f"look at {batches(before, began)}, then train on with a smaller learning rate"
    if rate.has_leapt:
        return f"train on with the learning rate that it had, {figure(rate.before)}"
    return (
        f"look at {batches(before, began)}: the learning rate did not leap ({figure(rate.before)} before, "
        f"{figure(rate.after)} after), so the data, or whatever else writes to the weights, comes first"
    )


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


def _first_leap(run: RunFacts, course: LossCourse, since: int) -> tuple[int, int]:
    """Return the step of the leap by the finest series that shows it, and that of its measurement before.

    A loss that is logged is finer than the probe's: a leap of it in the last two measurements before counts.
    """
    apart = int(np.median(np.diff(course.loss.step)))
    logged = [(s, find_spikes(s, course.reference, is_batch=True)) for s in map(run.every_point, run.logged_losses)]
    near = [(spike.step, int(s.step[spike.at - 1])) for s, spikes in logged for spike in spikes
            if since - 2 * apart <= spike.step <= since]  # fmt: skip
    before = course.loss.step[course.loss.step < since]
    return min(near, default=(since, int(before[-1]) if len(before) else since))


def _loss_signs(course: LossCourse) -> list[Sign]:
    return [
        lost_sign(course, 0.5, _BANK, 0.25, reliability=0.6),
        level_sign(course, 0.9, _LEARNED, patience=4),
        Sign(course.loss.with_values(course.bounces), 1.0, ABOVE, _BANK,
             "the rises of the last 8 measurements add up to {value} times the loss of guessing",
             release=0.6, reliability=0.6, kind="loss", symptom=LOSS_LEAPT,
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
             patience=1, starts="crossing", quantity="largest loss so far over its start", once=True,
             symptom=LOSS_LEAPT),
        Sign(largest_growth(run), 10.0, ABOVE, _BANK,
             "the weights were thrown to {value} times their size at the start",
             patience=1, starts="crossing", kind="weights", quantity="largest growth of all weights so far",
             once=True, symptom=WEIGHTS_GREW),
        Sign(largest_jump(run), 2.0, ABOVE, _BANK, "the weights grew {value} times in one jump", patience=1,
             starts="crossing", kind="weights", quantity="largest growth of all weights between two measurements",
             once=True, symptom=WEIGHTS_GREW),
    ]  # fmt: skip
