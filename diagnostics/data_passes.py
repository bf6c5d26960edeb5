"""How often the run has been through its data so far."""

from __future__ import annotations

from dataclasses import dataclass

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Question, Reading, ReferenceLine


@dataclass
class DataPasses(Diagnostic):
    """Samples seen over unique samples: optimiser steps times the samples of a step, over the size of the data set.

    Value ≥ 0: 1 is one epoch. Only the training loop knows how many samples a step takes (several batches add up
    under accumulation, several machines side by side) and how many different ones there are (augmentation does not
    count), so both are yours to give; nothing is guessed from a loader. No pass over the data.

    Args:
        samples_per_step: samples that one optimiser step takes in, over all batches and machines.
        num_unique: different samples in the train data.
    """

    samples_per_step: float | None = None
    num_unique: int | None = None

    name = "data.passes"
    title = "Passes over the data"
    question = Question.OVERFITTING
    summary = "How often each train sample has been seen so far, on average."
    formula = r"t \cdot B \big/ N_{\text{unique}}"
    unit = "epochs"
    undefined = (
        "Samples of a step or the size of the data set are not given (options samples_per_step, num_unique)."
    )
    source = (
        "Komatsuzaki 2019, One Epoch Is All You Need; Xue et al. 2023, To Repeat or Not To Repeat: Insights from "
        "Scaling LLM under Token-Crisis"
    )
    needs = Needs.NOTHING
    tier = Tier.FULL
    interval = 20
    references = (ReferenceLine("one epoch", 1.0, "by the definition"),)

    def __post_init__(self) -> None:
        given = [value for value in (self.samples_per_step, self.num_unique) if value is not None]
        if any(isinstance(value, bool) or not value > 0 for value in given):
            raise ValueError(
                f"expected numbers above 0, got samples_per_step={self.samples_per_step!r} and "
                f"num_unique={self.num_unique!r} in options of 'data.passes'; write the batch size and len(dataset)"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the number of passes."""
        if self.samples_per_step is None or self.num_unique is None:
            raise Missing(
                "how many samples a step takes and how many there are is not known; write "
                "{'data.passes': {'samples_per_step': 64, 'num_unique': len(dataset)}}"
            )
        seen = snapshot.step * self.samples_per_step
        return Reading(seen / self.num_unique, details={"samples_seen": seen})
