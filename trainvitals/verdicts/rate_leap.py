"""The learning rate round a leap of the loss: whether it leapt too."""

from __future__ import annotations

from dataclasses import dataclass

from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.run_facts import RunFacts

_RAISED = 1.5  # times: more than a warm-up raises it between two measurements


@dataclass(frozen=True)
class RateAround:
    """The learning rate at its last measurement before a step, and at its first from that step on."""

    before: float
    after: float
    step_before: int
    step_after: int

    @property
    def has_leapt(self) -> bool:
        """Whether it rose by more than a schedule raises it between two measurements."""
        return self.after > _RAISED * self.before

    def __str__(self) -> str:
        """The two rates in words, with their steps."""
        before, after = figure(self.before), figure(self.after)
        return f"from {before} at step {self.step_before:,} to {after} at step {self.step_after:,}"


def rate_around(run: RunFacts, step: int) -> RateAround | None:
    """Return the learning rate on both sides of a step, or None where it was not measured on both."""
    rate = run.learning_rate
    before, after = rate.until(step - 1), rate.since(step)
    if not before or not after:
        return None
    return RateAround(float(before.value[-1]), float(after.value[0]), int(before.step[-1]), int(after.step[0]))
