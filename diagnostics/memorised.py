"""Over-memorised samples: those that the network is sure of from one measurement to the next, and for good.

Legend: N samples of the train probe, C classes, p_i the probability that the network gives the label of sample i.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.class_probabilities import on_train
from trainvitals.diagnostics.hard_samples import sample_keys
from trainvitals.schema import Chart, Question, Reading


@dataclass
class Memorised(Diagnostic):
    """Train samples whose label went from at most `low` to at least `high` probability in one jump and stayed there.

    A jump is between two successive measurements; a sample that falls below `high` later no longer counts. `share`
    of the train probe in [0, 1], `samples` (N,) with 1 for those that count, keys are the samples' places in the
    probe batch. Exact for the measurements taken: the longer the interval, the more steps one jump may hide. It
    remembers the run so far.

    Args:
        low: highest probability before the jump; None (default) is chance, 1/C. Our choice.
        high: lowest probability after the jump and from then on; 0.9 (a loss of 0.1) is our choice.
    """

    low: float | None = None
    high: float = 0.9
    _before: Tensor | None = field(default=None, init=False, repr=False)  # (N,)
    _is_memorised: Tensor | None = field(default=None, init=False, repr=False)  # (N,)

    name = "memorised"
    title = "Over-memorised samples"
    question = Question.SAMPLES
    summary = "Which train samples the network became sure of in one jump, and has been sure of since."
    formula = r"\exists s \le t:\ p_i(s-1) \le \text{low},\ p_i(r) \ge \text{high}\ \forall r \in s..t"
    undefined = (
        "The first measurement; outputs that are not (N, C), targets that are not class labels, or outputs with NaN "
        "or Inf."
    )
    source = "Lin et al. 2024, On the Over-Memorization During Natural, Robust and Catastrophic Overfitting"
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 20
    parts = {
        "share": Part(
            "Share of samples memorised in one jump",
            "How many train samples the network became sure of in one jump, and has been sure of since.",
            unit="share of samples",
        ),
        "samples": Part(
            "Samples memorised in one jump",
            "Which train samples the network became sure of in one jump: 1 for those.", chart=Chart.HEATMAP,
        ),
    }  # fmt: skip
    keys = "sample"

    def __post_init__(self) -> None:
        low = 0.0 if self.low is None else self.low
        if not 0 <= low < self.high <= 1:
            raise ValueError(
                f"expected 0 <= low < high <= 1, got low={self.low!r}, high={self.high!r} in options of 'memorised'; "
                "leave them out for chance and 0.9"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the share, and which samples."""
        found = snapshot.once(on_train)
        p, num_classes = found.log_p_label.exp().cpu(), found.log_p.shape[1]
        # 1/C and its rounding: a network without knowledge is at chance
        low = self.low if self.low is not None else min((1 + 1e-6) / num_classes, self.high)
        before, self._before = self._before, p
        if before is None or self._is_memorised is None:
            self._is_memorised = torch.zeros(len(p), dtype=torch.bool)
            raise Missing("this is the first measurement: a jump needs two")
        self._is_memorised = (self._is_memorised | (before <= low)) & (p >= self.high)
        flags = self._is_memorised.double()
        return {
            "share": Reading(value=float(flags.mean())),
            "samples": Reading(value=flags, keys=sample_keys(len(flags))),
        }
