"""Underfitting: the train loss stands still, far up, and something other than the data holds it there.

Legend: n points, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.loss_course import SMOOTHED, LossCourse, loss_course
from trainvitals.verdicts.noise import running_median, running_noise
from trainvitals.verdicts.plateau import stands_still
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import ABOVE, BELOW, LOSS_HIGH, LOSS_LOST, RANK_FELL, Sign
from trainvitals.verdicts.weigh import weigh

_GOODFELLOW = "Goodfellow, Bengio, Courville 2016, Deep Learning, section 5.2"
_ALAIN = "Alain, Bengio 2017, Understanding intermediate layers using linear classifier probes, section 3"
_OUI = "Fernandez-Hernandez et al. 2025, OUI Need to Talk About Weight Decay, section 4"
_PAPYAN = "Papyan, Han, Donoho 2020: C classes apart need features of rank C − 1"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
_HIGH, _NOTHING, _SHRUNK, _OUI_LOW, _RANK, _KNN = 0.2, 0.95, 0.7, 0.3, 0.5, 0.05


class Underfitting(Condition):
    """The train loss stands still above a fifth of chance, and one more sign says that the network is what holds it.

    The other signs: nothing was learned; decay has shrunk the weights; the features have too few dimensions for the
    classes; neighbours in the features tell more than the classifier; OUI is low (it never speaks alone). A loss
    that stands still may be all that noisy data allows, so without one of them it is healthy, and the summary says so.
    A held-out accuracy above the train accuracy is a sign of noisy train labels and speaks against it, and so does a
    loss that bounces or had been lower: then the steps are what is wrong.
    """

    id = "underfitting"
    title = "Underfitting"
    says = "Training has come to a stand before the network learned what this data has to tell."
    symptoms = (LOSS_HIGH, LOSS_LOST)
    reads = (
        "loss.train",
        "chance.loss",
        "accuracy.train",
        "accuracy.heldout",
        "weights.norm.growth",
        "oui",
        "rank.effective",
        "probe.knn",
        "learning_rate",
    )
    source = _GOODFELLOW
    follows = ("step_too_large",)
    advice = (
        Advice("Lower the weight decay or the dropout.", _OUI),
        Advice("Widen or deepen the network; for a linear model, give it a hidden layer.", _GOODFELLOW),
        Advice(
            "Check that inputs are scaled and that labels belong to their inputs.",
            "Karpathy 2019, A Recipe for Training Neural Networks",
        ),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when the loss stands still far up for one more reason, `alarm` for two, or if all is lost."""
        course = loss_course(run, 10)
        stuck = Sign(
            course.loss.with_values(np.where(stands_still(course.smooth), course.level, 0.0)),
            _HIGH,
            ABOVE,
            _BANK,
            "the train loss stands still at {value:share} of that of guessing",
            release=_HIGH / 2,
            reliability=0.4,
            raw=np.where(stands_still(course.smooth), course.level_as_recorded, 0.0),
            smoothed=SMOOTHED,
            quantity="loss that stands still over that of guessing",
            symptom=LOSS_HIGH,
        )
        others = [*_nothing(course), *_shrunk(run), *_few_dimensions(run), *_neighbours(run), *_oui(run)]
        found = weigh(
            [stuck, *others], watch=2, alarm=3, leading=[stuck],
            against=[*_noisy_labels(run), *_unrest(course), _sets_out(course)],
        )
        telling = [s for s in found.holding if s is not stuck and s.series.name not in ("oui", "learning_rate")]
        judgement = found.judgement("Training stands still before it has fitted the data", _healthy(stuck))
        if judgement.state != VerdictState.HEALTHY and (not stuck.holds or not telling or not _steps_count(run)):
            calm = "Training stands still, and nothing says that it is the network that holds it"
            return replace(weigh([stuck], watch=2).judgement(calm, calm), confidence=0.4)
        if judgement.since is None or judgement.noticed is None:
            return judgement
        return replace(judgement, since=min(_reached(course), judgement.noticed))


def _healthy(stuck: Sign) -> str:
    return (
        "The train loss stands still, which may be all that the data allows"
        if stuck.holds
        else "The train loss is low, or still falls"
    )


def _unrest(course: LossCourse) -> Iterator[Sign]:
    """Yield what says that the steps, not the network, hold the loss: it had been lower, or it bounces."""
    yield Sign(course.loss.with_values(course.lost), 0.2, ABOVE, _BANK, "{value:part} of the progress was lost again",
               release=0.1)
    yield Sign(course.loss.with_values(course.bounces), 0.2, ABOVE, _BANK,
               "the rises of the last 8 measurements add up to {value} times the loss of guessing", release=0.1)


def _sets_out(course: LossCourse) -> Sign:
    """Return what says that training only begins: most of the fall so far came in the last third of the run."""
    smooth = course.smooth
    index = np.arange(len(smooth))
    recent = smooth[np.maximum(index - np.maximum(index // 3, 8), 0)] - smooth
    whole = np.maximum.accumulate(smooth) - smooth
    is_fall = recent > 4 * running_noise(course.loss.value)
    share = np.where(is_fall & (whole > 0), recent / np.where(whole > 0, whole, 1.0), 0.0)
    half = "half: a loss that has come to a stand fell before"
    return Sign(course.loss.with_values(share), 0.5, ABOVE, half, "most of the fall came last", release=0.3)


def _reached(course: LossCourse) -> int:
    """Return the step at which 95 % of the fall was done: there the plateau begins."""
    end = float(np.median(course.smooth[-3:]))
    done = course.smooth <= end + 0.05 * max(float(course.smooth[0]) - end, 0.0) + 1e-12
    return int(course.loss.step[int(np.argmax(done))])


def _steps_count(run: RunFacts) -> bool:
    """Tell whether steps are being taken: an untouched network has not come to a stand, it has not set out."""
    update = run.layers("update.ratio").largest()
    return not update or float(np.median(update.value[-5:])) > 1e-4


def _nothing(course: LossCourse) -> Iterator[Sign]:
    yield Sign(
        Series("chance.loss", course.loss.step, course.level),
        _NOTHING,
        ABOVE,
        course.reference_source,
        "hardly anything was learned, the loss is {value:share} of that of guessing",
        reliability=0.6,
        raw=course.level_as_recorded,
        smoothed=SMOOTHED,
        symptom=LOSS_HIGH,
    )


def _shrunk(run: RunFacts) -> Iterator[Sign]:
    decay, growth = run.optimizer.get("weight_decay"), run.layers("weights.norm.growth").median()
    if isinstance(decay, (int, float)) and decay > 0 and growth:
        yield Sign(
            growth,
            _SHRUNK,
            BELOW,
            f"{_OUI}; {_BANK}",
            "weight decay has shrunk the weights to {value:share} of their start",
            release=_SHRUNK + 0.1,
            reliability=0.5,
        )


def _few_dimensions(run: RunFacts) -> Iterator[Sign]:
    rank, num_classes = run.series("rank.effective"), run.num_classes
    if len(rank) >= 5 and num_classes is not None and num_classes > 2:
        yield Sign(
            rank,
            _RANK * (num_classes - 1),
            BELOW,
            f"half of C − 1; {_PAPYAN}",
            "the effective rank of the features is {value}, too low for the classes",
            release=0.7 * (num_classes - 1),
            symptom=RANK_FELL,
            reliability=0.5,
        )


def _neighbours(run: RunFacts) -> Iterator[Sign]:
    knn, accuracy = run.series("probe.knn"), run.series("accuracy.heldout")
    if len(knn) >= 5 and accuracy:
        yield Sign(
            knn.with_values(running_median(knn.value - accuracy.at(knn.step), 3)),
            _KNN,
            ABOVE,
            f"{_ALAIN}; {_BANK}",
            "neighbours in the features are right more often than the network, by {value:points}",
            reliability=0.6,
        )


def _oui(run: RunFacts) -> Iterator[Sign]:
    oui = run.series("oui")
    if len(oui) >= 5:
        yield Sign(
            oui,
            _OUI_LOW,
            BELOW,
            f"{_OUI}; {_BANK}",
            "few activation patterns tell samples apart, OUI is {value}",
            release=_OUI_LOW + 0.05,
            reliability=0.3,
        )


def _noisy_labels(run: RunFacts) -> Iterator[Sign]:
    train, heldout = run.series("accuracy.train"), run.series("accuracy.heldout")
    if len(train) >= 8 and len(heldout) >= 8:
        above = running_median(heldout.value - train.at(heldout.step), 5)
        yield Sign(
            heldout.with_values(np.nan_to_num(above)),
            0.05,
            ABOVE,
            _BANK,
            "the held-out accuracy is {value:points} above the train accuracy",
            reliability=0.5,
        )
