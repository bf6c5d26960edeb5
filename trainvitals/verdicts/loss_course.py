"""The course of the train loss against its own references: chance, the start, the best so far.

Everything looks back only. Legend: n points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Floats, Series

NAME = "loss.train"
SMOOTH = 5  # points of the running median: single bounces do not count as a level

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
    def level(self) -> Floats:
        """The smooth loss over the reference, (n,): 1 is nothing learned."""
        return self.smooth / self.reference

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
