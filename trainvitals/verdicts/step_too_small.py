"""The step is too small: the loss falls steadily, far from its end, and would bear larger steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.loss_course import LossCourse, loss_course
from trainvitals.verdicts.noise import running_noise
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Floats, Ints, Series
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh
from trainvitals.verdicts.weight_course import largest_growth

_KARPATHY = "Karpathy 2015, CS231n notes on babysitting the learning process: a tenth of the usual 1e-3"
_COHEN = "Cohen et al. 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability"
_SMITH = "Smith 2018, A disciplined approach to neural network hyper-parameters, section 4"
_PLAIN = "by its meaning: the pace would have to last twice as long as the run to halve the loss"
_MIN_POINTS = 10
_SLOW = 2.0  # times the run so far, to halve the loss


class StepTooSmall(Condition):
    """At its present pace the loss would take several times the run so far to halve, and the steps are tiny."""

    id = "step_too_small"
    title = "Step too small"
    says = "Training moves in the right direction and would get there sooner with larger steps."
    reads = ("loss.train", "chance.loss", "update.ratio", "stability.ratio", "learning_rate")
    source = _SMITH
    advice = (
        Advice("Raise the learning rate by a factor of 3 to 10 until the loss falls faster or bounces.", _SMITH),
        Advice("Look for the largest usable rate with a short run that raises it step by step.",
               "Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `alarm` when the pace is slow and all that was measured of the steps says that they are tiny."""
        course = loss_course(run, _MIN_POINTS)
        update = run.layers("update.ratio").median()
        ratio = run.series("stability.ratio")
        if not update and not ratio:
            raise Unmeasured(run.why_missing("update.ratio"), run.why_missing("stability.ratio"))
        slow = Sign(
            _pace(course, _at_full_rate(run, course.loss.step)), _SLOW, ABOVE, _PLAIN,
            "at this pace the loss needs {value} times the run so far to halve", release=0.5 * _SLOW, reliability=0.6,
            quantity="steps to halve the loss over those of the run",
        )  # fmt: skip
        tiny = Sign(update, 1e-4, BELOW, _KARPATHY, "a step changes the weights by {value} of their size", release=2e-4,
                    quantity="update over weights, median of the tensors")
        far = Sign(
            ratio, 0.05, BELOW, _COHEN, "the sharpness is {value} of the largest that this step size bears",
            release=0.1,
            reliability=0.5,
        )  # fmt: skip
        steps = [sign for sign in (tiny, far) if sign.series]
        needed = 1 + len(steps)
        found = weigh([slow, *steps], watch=needed, alarm=needed, leading=[slow], against=_blown_up(run, course))
        missing = [run.why_missing(name) for name, series in (("update.ratio", update), ("stability.ratio", ratio))
                   if not series]  # fmt: skip
        judgement = found.judgement("The steps are too small", "The steps are not what holds the loss up", missing)
        return replace(judgement, since=_since(run, judgement))


def _since(run: RunFacts, judgement: Judgement) -> int | None:
    """Return when it began: with the learning rate, which the pace of the loss shows only later."""
    if judgement.noticed is None or not run.learning_rate:
        return judgement.since
    rate = run.learning_rate.until(judgement.noticed)
    changed = np.flatnonzero(np.abs(np.diff(np.log(np.maximum(rate.value, 1e-300)))) > np.log(1.5))
    return int(rate.step[changed[-1] + 1] if len(changed) else run.series("loss.train").step[0])


def _blown_up(run: RunFacts, course: LossCourse) -> list[Sign]:
    """Return the signs that an earlier step was far too large: beside weights that it threw, any step is tiny."""
    loss = course.loss.with_values(course.peak)
    return [
        Sign(loss, 3.0, ABOVE, _PLAIN, "the loss shot up to {value} times its start", patience=1),
        Sign(largest_growth(run), 10.0, ABOVE, _PLAIN, "the weights were thrown to {value} times their size",
             patience=1),
    ]


def _at_full_rate(run: RunFacts, steps: Ints) -> NDArray[np.bool_]:
    """Return at each of `steps` whether the learning rate was at half or more of its largest so far, and not rising."""
    rate = run.learning_rate
    if not rate:
        return np.ones(len(steps), bool)
    now = rate.at(steps)
    largest = Series(rate.name, rate.step, np.maximum.accumulate(rate.value)).at(steps)
    earlier = rate.at(steps - np.maximum(steps // 10, 1))
    return ~(now < 0.5 * largest) & ~(now > 1.02 * earlier)


def _pace(course: LossCourse, counted: NDArray[np.bool_]) -> Series:
    """Return how many times the run so far it would take to halve the loss, at the pace of the second half of it.

    0 where that says nothing: a loss that is below half of its reference, that does not fall beyond its noise, or a
    learning rate on its way up or down.
    """
    step, loss, index = course.loss.step.astype(np.float64), course.loss.value, np.arange(len(course.loss))
    middle = np.searchsorted(step, (step[0] + step) / 2)
    third = np.maximum(1, (index + 1 - middle) // 3)  # points at either end of the second half
    fall = _mean(loss, middle, middle + third) - _mean(loss, index + 1 - third, index + 1)
    apart = _mean(step, index + 1 - third, index + 1) - _mean(step, middle, middle + third)
    error = running_noise(loss) * np.sqrt(2 / third)
    says = counted & (course.level > 0.5) & (index >= _MIN_POINTS - 1) & (apart > 0) & (fall > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        halving = 0.5 * _mean(loss, index + 1 - third, index + 1) * apart / fall
        pace = np.where(says & (fall > error), halving / np.maximum(step - step[0], 1.0), 0.0)
    is_doubtful = says & (fall <= 3 * error)  # it neither begins nor ends here
    return course.loss.with_values(np.where(is_doubtful, np.clip(pace, 0.0, 0.75 * _SLOW), pace))


def _mean(y: Floats, start: Ints, stop: Ints) -> Floats:
    """Return the mean of y[start:stop] for each pair of ends."""
    total = np.concatenate([[0.0], np.cumsum(y)])
    return (total[np.minimum(stop, len(y))] - total[start]) / (stop - start)
