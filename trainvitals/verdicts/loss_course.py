"""The course of the train loss against its own references: chance, the start, the best so far.

Everything looks back only. Legend: n points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Floats, Series
from trainvitals.verdicts.sign import ABOVE, LOSS_HIGH, LOSS_LOST, Sign

NAME = "loss.train"
SMOOTH = 5  # points of the running median: single bounces do not count as a level
SMOOTHED = f"median of the last {SMOOTH} measurements"

WINDOW = 8  # points over which bounces are counted


@dataclass(frozen=True, eq=False)
class LossCourse:
    """The train loss and what it is to be compared with."""

    loss: Series  # as measured
    smooth: Floats  # (n,) running median
    reference: float  # the loss of having learned nothing: chance, or the first loss where that is not known
    reference_source: str
    best: Floats  # (n,) smallest smooth loss so far

    @property
    def lost(self) -> Floats:
        """What share of the progress made so far was lost again, (n,): 0 none, 1 all, more: worse than at the start.

        A tenth of the reference counts as progress in any case, so that noise round the start is no loss.
        """
        return (self.smooth - self.best) / np.maximum(self.reference - self.best, 0.1 * abs(self.reference))

    @property
    def lost_as_recorded(self) -> Floats:
        """`lost` of the losses as they were recorded, (n,): what a reader works out from the chart."""
        best = np.minimum.accumulate(self.loss.value)
        return (self.loss.value - best) / np.maximum(self.reference - best, 0.1 * abs(self.reference))

    @property
    def level(self) -> Floats:
        """The smooth loss over the reference, (n,): 1 is nothing learned."""
        return self.smooth / self.reference

    @property
    def level_as_recorded(self) -> Floats:
        """The loss as it was recorded over the reference, (n,)."""
        return self.loss.value / self.reference

    @property
    def bounces(self) -> Floats:
        """How often the reference was climbed again within the last points, (n,): rises over it, each at most 0.3.

        A single spike counts 0.3 however high it is.
        """
        rises = np.clip(np.diff(self.loss.value, prepend=self.loss.value[0]) / self.reference, 0.0, 0.3)
        total = np.cumsum(rises)
        return total - np.concatenate([np.zeros(min(WINDOW, len(total))), total[:-WINDOW]])

    @property
    def peak(self) -> Floats:
        """The largest loss so far over the larger of reference and first loss, (n,)."""
        return np.maximum.accumulate(self.loss.value) / max(self.reference, float(self.loss.value[0]))


def loss_course(run: RunFacts, num_points: int = 8) -> LossCourse:
    """Return the course of the train-probe loss.

    Raises:
        Unmeasured: if it was not measured often enough.
    """
    loss = run.need(NAME, num_points)
    reference, source = run.chance_loss, "chance level of the labels (chance.loss)"
    if reference is None or not reference > 0:
        reference, source = float(loss.value[0]), "the loss at the start"
    if not reference > 0:
        raise Unmeasured(f"{NAME}: it is not positive at the start, so that there is no scale to compare with")
    smooth = running_median(loss.value, SMOOTH)
    return LossCourse(loss, smooth, float(reference), source, np.minimum.accumulate(smooth))


def lost_sign(course: LossCourse, threshold: float, source: str, release: float, reliability: float = 0.5) -> Sign:
    """Return the sign that progress is lost again: decided by the smoothed loss, told with the recorded one."""
    best, now, guess = np.minimum.accumulate(course.loss.value), course.loss.value, course.reference
    whence = "for guessing" if "chance" in course.reference_source else "at its start"
    return Sign(course.loss.with_values(course.lost), threshold, ABOVE, source,
                lambda at: f"the train loss is {figure(float(now[at]))}, after {figure(float(best[at]))} at its best "
                           f"and {figure(guess)} {whence}: {{value:part}} of its progress is lost again",
                release=release, reliability=reliability, kind="loss", raw=course.lost_as_recorded, smoothed=SMOOTHED,
                quantity="share of the progress that was lost", symptom=LOSS_LOST)  # fmt: skip


def level_sign(course: LossCourse, threshold: float, release: float, *, patience: int = 3, more: str = "") -> Sign:
    """Return the sign that the loss is no lower than guessing; a start above it takes a few measurements to come down.

    `more` is what the words go on with.
    """
    settled, now = np.arange(len(course.loss)) >= 5, course.loss.value
    what = "of that of guessing" if "chance" in course.reference_source else "of that at the start"
    return Sign(course.loss.with_values(np.where(settled, course.level, 0.0)), threshold, ABOVE,
                course.reference_source,
                lambda at: f"the train loss, {figure(float(now[at]))}, is at {{value:share}} {what}{more}",
                release=release, patience=patience, reliability=0.5, kind="loss", raw=course.level_as_recorded,
                smoothed=SMOOTHED, quantity="loss over that of guessing", symptom=LOSS_HIGH)  # fmt: skip
