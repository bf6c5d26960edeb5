"""How much later the held-out data is understood than the train data is fitted."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Question, Reading, ReferenceLine, Scale


@dataclass
class GrokkingDelay(Diagnostic):
    """First step at which held-out accuracy reaches a threshold, over the first step at which train accuracy does.

    Value > 0, in steps over steps: 1 is no delay, below 1 the held-out probe was there first. Steps are those of
    measurements, so each is late by at most one interval: details `train_step` and `heldout_step`, and
    `train_before` and `heldout_before`, the last measured steps below the threshold (None where the first measurement
    was above it). It remembers the run from its own first measurement, and keeps its value once it has one. Its
    `error` bounds what the interval can have changed.

    Args:
        threshold: accuracy that counts as reached, in (0, 1].
    """

    threshold: float = 0.95
    _train: tuple[int | None, int] | None = field(default=None, init=False, repr=False)  # step before, step reached
    _heldout: tuple[int | None, int] | None = field(default=None, init=False, repr=False)
    _last_step: int | None = field(default=None, init=False, repr=False)

    name = "grokking_delay"
    title = "Grokking delay"
    question = Question.OVERFITTING
    summary = "How many times later the held-out accuracy reaches 95 % than the train accuracy does."
    formula = r"\min\{t : A_{\text{held-out}}(t) \ge a\} \big/ \min\{t : A_{\text{train}}(t) \ge a\}"
    undefined = (
        "Either accuracy has not reached the threshold; the train accuracy was there at step 0; no held-out probe; "
        "outputs without classes for the targets."
    )
    source = "Power et al. 2022, Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets, section 3"
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 20
    scale = Scale.LOG
    references = (ReferenceLine("no delay", 1.0, "by the definition"),)

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(
                f"expected an accuracy above 0 and at most 1, got threshold={self.threshold!r} in options of "
                "'grokking_delay'; leave it out for 0.95"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the ratio of the two steps."""
        if self._train is None or self._heldout is None:
            train, heldout = snapshot.train.accuracy(), snapshot.heldout.accuracy()
            now = (self._last_step, snapshot.step)
            self._train = self._train or (now if train >= self.threshold else None)
            self._heldout = self._heldout or (now if heldout >= self.threshold else None)
            self._last_step = snapshot.step
            if self._train is None or self._heldout is None:
                raise Missing(
                    f"accuracy is {train:.3g} on the train and {heldout:.3g} on the held-out probe: "
                    f"both have to have reached {self.threshold:g}"
                )
        return _delay(self._train, self._heldout)


def _delay(train: tuple[int | None, int], heldout: tuple[int | None, int]) -> Reading:
    (train_before, train_step), (heldout_before, heldout_step) = train, heldout
    if train_step == 0:
        raise Missing("the train accuracy was there at step 0: a ratio needs a step above it")
    value = heldout_step / train_step
    earliest = (heldout_before if heldout_before is not None else heldout_step) / train_step
    latest = heldout_step / train_before if train_before else value  # a step of 0 bounds nothing
    details = {
        "train_step": train_step, "heldout_step": heldout_step,
        "train_before": train_before, "heldout_before": heldout_before,
    }  # fmt: skip
    return Reading(value, max(value - earliest, latest - value), details=details)
