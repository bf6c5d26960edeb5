"""Overfitting: the held-out loss has turned while the train loss falls. A gap alone says nothing.

Legend: n points of the held-out loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.heldout_course import PROBE_HELDOUT, PROBE_TRAIN, SMOOTH, HeldoutCourse, heldout_course
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Floats, Series
from trainvitals.verdicts.sign import ABOVE, Sign
from trainvitals.verdicts.weigh import weigh

_PRECHELT = "Prechelt 1998, Early Stopping - but when?, section 2 (generalization loss)"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
_GOODFELLOW = "Goodfellow, Bengio, Courville 2016, Deep Learning, section 7.8"
_YEOM = "Yeom et al. 2018, Privacy Risk in Machine Learning, section 3"
# Shares of the best loss and of the whole fall that a rise must reach: to count at all, and to count as far.
_TURN, _TURN_OF_FALL, _TURN_NOISE = 0.05, 0.02, 4.0
_FAR, _FAR_OF_FALL, _FAR_NOISE = 0.15, 0.08, 8.0
_TRAIN_FALL = 0.03


class Overfitting(Condition):
    """The held-out loss stands above its best, beyond its noise and its own scale, and the train loss has gone on down.

    Both together are needed for `watch`; a third sign makes an alarm: the rise is far, the held-out accuracy fell,
    or the loss tells members from others better than it did at the turn. Where only one's own logs of the losses are
    there, the same is done with them at a lower confidence.
    """

    id = "overfitting"
    title = "Overfitting"
    says = "The network gets better on the data it is trained on and worse on data that was held out."
    reads = (PROBE_HELDOUT, PROBE_TRAIN, "accuracy.heldout", "mia_auc")
    source = _PRECHELT
    follows = ("label_noise",)
    advice = (
        Advice("Stop here, or go back to the weights at the step where the held-out loss was lowest.", _PRECHELT),
        Advice(
            "Raise the weight decay, or add dropout or augmentation.",
            "Krogh, Hertz 1991, A Simple Weight Decay "
            "Can Improve Generalization; Srivastava et al. 2014, Dropout, section 1",
        ),
        Advice(
            "Collect more data, or repeat it less often.",
            "Hernandez et al. 2022, Scaling Laws and Interpretability of Learning from Repeated Data",
        ),
        Advice(
            "Look for wrong labels: they are fitted last, and cost the most.",
            "Zhang et al. 2017, Understanding deep learning requires rethinking generalization, section 2",
        ),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when the held-out loss turned and the train loss fell since, `alarm` with a third sign."""
        course = heldout_course(run)
        turned, parted = _turned(course), _train_fell(course)
        third = [_far(course), *_accuracy_fell(run), *_membership(run, course)]
        found = weigh([turned, parted, *third], watch=2, alarm=3, leading=[turned])
        if found.state != VerdictState.HEALTHY and not parted.holds:  # not what overfitting is, whatever else holds
            found = weigh([turned], watch=2)
        missing = _not_probed(run, course)
        judgement = found.judgement(
            "The held-out loss has turned", "The held-out loss has not turned for good", missing
        )
        if judgement.since is None:
            return judgement
        return replace(judgement, since=course.turn_step, advice=(_go_back(course), *self.advice[1:]))


def _go_back(course: HeldoutCourse) -> Advice:
    """Return the first advice with the step and the value to go back to."""
    if course.turn_step == course.loss.step[0]:
        return Advice(
            "The held-out loss was lowest at the start: nothing that was learned carries over to held-out data. "
            "Check that "
            "both are of one kind; train on only if generalisation is known to come late on this task.",
            _PRECHELT,
        )
    then = float(course.loss.at(np.array([course.turn_step]))[0])
    low = "at its lowest" if then <= course.loss.value.min() else "near its lowest"
    return Advice(
        f"Stop, or go back to the weights of step {course.turn_step:,}, where the held-out loss was {low}: "
        f"{figure(then)} there, {figure(course.loss.last)} at step {course.loss.step[-1]:,}.",
        _PRECHELT,
    )


def _rise_as_recorded(course: HeldoutCourse) -> Floats:
    """Return how far the recorded loss stands above that of the turn, (n,)."""
    return course.loss.value - course.loss.at(np.array([course.turn_step]))[0]


def _turned(course: HeldoutCourse) -> Sign:
    level = np.maximum.reduce([_TURN * np.abs(course.best), _TURN_OF_FALL * course.fall, _TURN_NOISE * course.noise])
    return Sign(
        course.loss.with_values(course.rise),
        level,
        ABOVE,
        f"{_PRECHELT}; {_BANK}",
        f"the held-out loss stands {{value}} above that of step {course.turn_step:,}",
        release=0.5 * level,
        reliability=0.6,
        quantity="rise of the held-out loss over its best",
        raw=_rise_as_recorded(course),
        smoothed=f"running median of {SMOOTH} measurements",
    )


def _far(course: HeldoutCourse) -> Sign:
    level = [_FAR * np.abs(course.best), _FAR_OF_FALL * course.fall, _FAR_NOISE * course.noise]
    return Sign(
        course.loss.with_values(course.rise),
        np.maximum.reduce(level),
        ABOVE,
        _BANK,
        "the held-out loss stands far above its best, by {value}",
        reliability=0.6,
        quantity="rise of the held-out loss over its best",
        raw=_rise_as_recorded(course),
        smoothed=f"running median of {SMOOTH} measurements",
        repeats=True,
    )


def _train_fell(course: HeldoutCourse) -> Sign:
    fell = np.nan_to_num(course.train_fall)
    return Sign(
        Series(course.train.name, course.loss.step, fell),
        _TRAIN_FALL,
        ABOVE,
        _GOODFELLOW,
        "since the held-out loss was lowest the train loss has fallen by {value:share}",
        release=0.0,
        reliability=0.5,
        quantity="fall of the train loss since the held-out loss was lowest",
    )


def _accuracy_fell(run: RunFacts) -> Iterator[Sign]:
    accuracy = run.series("accuracy.heldout")
    if len(accuracy) < 8:
        return
    smooth = running_median(accuracy.value, 5)
    num = (run.meta.get("heldout_probe") or {}).get("num_samples") or 300
    yield Sign(
        accuracy.with_values(np.maximum.accumulate(smooth) - smooth),
        max(0.02, 0.5 / float(num) ** 0.5),
        ABOVE,
        "half a standard error of a share at its widest, and 0.02; " + _BANK,
        "the held-out accuracy stands {value:points} below its best",
        reliability=0.6,
        raw=np.maximum.accumulate(accuracy.value) - accuracy.value,
        smoothed="median of the last 5 measurements",
    )


def _membership(run: RunFacts, course: HeldoutCourse) -> Iterator[Sign]:
    auc = run.series("mia_auc")
    if len(auc) < 4:
        return
    at_turn = _before(auc, course.turn_step)
    yield Sign(
        auc,
        np.maximum(0.6, at_turn + 0.05),
        ABOVE,
        f"{_YEOM}; {_BANK}",
        "the loss of a sample tells whether it was trained on, with an AUC of {value}, 0.5 being chance",
        reliability=0.4,
    )


def _before(series: Series, step: int) -> Floats | float:
    value = series.at(np.array([step]))[0]
    return float(value) if np.isfinite(value) else float(series.value[0])


def _not_probed(run: RunFacts, course: HeldoutCourse) -> tuple[str, ...]:
    """Return what was not measured on the probes and would have told more."""
    missing = [
        f"{name}: only your own {series.name} was there"
        for name, series in ((PROBE_HELDOUT, course.loss), (PROBE_TRAIN, course.train))
        if series.name != name
    ]
    if missing and len(run.series("accuracy.heldout")) < 8:
        missing.append(run.why_missing("accuracy.heldout"))
    return tuple(missing)
