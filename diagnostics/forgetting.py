"""Forgetting events: train samples that were classified right and are wrong again.

Legend: N samples of the train probe, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.hard_samples import by_sample
from trainvitals.schema import Chart, Question, Reading


@dataclass
class Forgetting(Diagnostic):
    """How often each train sample went from right to wrong between two measurements of the run.

    `events` (N,) counts them by sample, keys are the samples' places in the probe batch; `forgotten` is the share of
    samples with at least one, `never_learned` the share that was never right. Exact for the measurements taken: what
    is learned and forgotten between two is not seen, so counts depend on the interval. The paper counts at every
    presentation of a sample; here the whole probe is looked at with the same weights. Details of `events`: `mean`,
    and `largest`, the ten samples most often forgotten. It remembers the run so far. No options.
    """

    _was_right: Tensor | None = field(default=None, init=False, repr=False)  # (N,)
    _was_ever_right: Tensor | None = field(default=None, init=False, repr=False)  # (N,)
    _num_events: Tensor | None = field(default=None, init=False, repr=False)  # (N,)

    name = "forgetting"
    title = "Forgetting events"
    question = Question.SAMPLES
    summary = "Which train samples are learned and forgotten again: odd ones and wrong labels most often."
    formula = r"\sum_t 1[\hat y_i(t-1) = y_i \wedge \hat y_i(t) \ne y_i]"
    undefined = (
        "Outputs that are not (N, C) or hold NaN, targets that are not class labels; events and forgotten: the first "
        "measurement."
    )
    source = (
        "Toneva et al. 2019, An Empirical Study of Example Forgetting during Deep Neural Network Learning, section 3"
    )
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 20
    parts = {
        "events": Part(
            "Forgetting events of each sample", "How often each train sample went from right to wrong.",
            unit="events", chart=Chart.HEATMAP,
        ),
        "forgotten": Part(
            "Share of samples forgotten", "How many train samples were right at some time and wrong at a later one.",
            unit="share of samples", formula=r"\frac{1}{N}\#\{i : \text{events}_i > 0\}",
        ),
        "never_learned": Part(
            "Share of samples never learned", "How many train samples have not been classified right so far.",
            unit="share of samples", formula=r"\frac{1}{N}\#\{i : \hat y_i(t) \ne y_i\ \forall t\}",
        ),
    }  # fmt: skip
    keys = "sample"

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return events by sample, and the shares of forgotten and of never learned samples."""
        labels, _ = snapshot.train.labels()
        if snapshot.train.outputs.isnan().any():
            raise Missing("the outputs hold NaN")
        is_right = (snapshot.train.outputs.argmax(1) == labels).cpu()
        before = self._was_right
        if before is None or self._was_ever_right is None or self._num_events is None:
            self._was_ever_right, self._num_events = is_right.clone(), torch.zeros(len(is_right), dtype=torch.float64)
        else:
            self._was_ever_right |= is_right
            self._num_events += before & ~is_right
        self._was_right = is_right
        events, never = self._num_events.clone(), ~self._was_ever_right
        return {
            "events": or_missing(lambda: _after_first(before, by_sample(events))),
            "forgotten": or_missing(lambda: _after_first(before, Reading(value=_share(events > 0)))),
            "never_learned": Reading(value=_share(never)),
        }


def _after_first(before: Tensor | None, reading: Reading) -> Reading:
    if before is None:
        raise Missing("this is the first measurement: nothing has been forgotten since an earlier one")
    return reading


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
