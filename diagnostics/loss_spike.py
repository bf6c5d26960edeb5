"""Loss spikes: a change of the loss that stands out from the changes before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Question, Reading, ReferenceLine

MIN_CHANGES = 10  # before that a median of deviations is too rough to say what stands out


def robust_z(value: float, others: Sequence[float]) -> float:
    """Return (value − median)/(1.4826 · MAD) over the others: a z-score that outliers among them do not move.

    1.4826 makes the median absolute deviation the standard deviation of a normal distribution.

    Raises:
        Missing: if more than half of the others are equal, so that they have no spread.

    >>> round(robust_z(5.0, [1.0, 2.0, 3.0, 4.0, 5.0]), 4)
    1.349
    """
    centre = float(np.median(others))
    spread = 1.4826 * float(np.median(np.abs(np.asarray(others) - centre)))
    if spread == 0:
        raise Missing("the last changes of the loss are all alike, so that nothing stands out")
    return (value - centre) / spread


@dataclass
class LossSpike(Diagnostic):
    """Robust z-score of the last change of log loss on the train probe among the changes before it.

    A change is between successive measurements: keep them at even distances. Large and positive is a spike; it is
    exact for the losses measured. Details: `change` of log loss. It remembers the last `window` changes of the run
    and needs 10 to begin with.

    Args:
        window: how many earlier changes it is compared with.
    """

    window: int = 50
    _log_loss: float | None = field(default=None, init=False, repr=False)
    _changes: list[float] = field(default_factory=list, init=False, repr=False)

    name = "spike"
    title = "Loss spikes"
    question = Question.STABILITY
    summary = "How far the last change of the train-probe loss stands out from the changes before it."
    formula = r"(d_t - \operatorname{med}_{s<t} d_s) / (1.4826 \operatorname{MAD}_{s<t} d_s),\ d_t = \log(L_t/L_{t-1})"
    unit = "robust standard deviations"
    undefined = (
        "Fewer than 10 earlier changes; a loss that is not positive and finite, now or at the last measurement; "
        "changes that are all alike."
    )
    source = "Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers (modified z-score)"
    needs = Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 50
    references = (ReferenceLine("stands out", 3.5, "Iglewicz and Hoaglin 1993, for single samples"),)

    def __post_init__(self) -> None:
        if isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < MIN_CHANGES:
            raise ValueError(
                f"expected a whole number of at least {MIN_CHANGES}, got window={self.window!r} in options of 'spike'; "
                "leave it out for 50"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the z-score of the last change."""
        change, earlier = self._next_change(snapshot.train.loss), list(self._changes)
        self._changes = [*earlier, change][-self.window :]
        if len(earlier) < MIN_CHANGES:
            raise Missing(f"{len(earlier)} earlier changes of the loss: a spike needs {MIN_CHANGES} to stand out from")
        return Reading(value=robust_z(change, earlier), details={"change": change})

    def _next_change(self, loss: float) -> float:
        before, self._log_loss = self._log_loss, None
        if not 0 < loss < math.inf:
            raise Missing(f"the loss is {loss:.4g}, its logarithm is not a number")
        self._log_loss = math.log(loss)
        if before is None:
            raise Missing("no loss at the last measurement to compare with")
        return self._log_loss - before
