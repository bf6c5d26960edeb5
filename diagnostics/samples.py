"""Every sample of the train probe by its place: its loss, what it is taken for, and how its label has fared.

Legend: N samples of the train probe, C classes, z_i (C,) outputs for sample i, t measurements of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.hard_samples import by_sample, sample_keys
from trainvitals.diagnostics.margin import margins
from trainvitals.schema import Chart, Question, Reading


@dataclass
class Samples(Diagnostic):
    """Loss, predicted class, and mean margin over the run of each sample of the train probe.

    Each part is (N,), exact; keys are the samples' places in the probe batch. `loss` is the loss of that sample
    alone. `predicted` is the class with the largest output. `aum`, the area under the margin, is the mean over the
    measurements of the run so far of z_y − max_{k≠y} z_k: the label of a sample that stays below zero, or far below
    the others, is not what samples like it teach, and is suspected to be wrong. The paper takes the mean over epochs,
    and finds a threshold from samples of a class that does not exist; here samples are
    ranked, and the measurements are those of the schedule. It remembers the run so far. No options.
    """

    _sum: Tensor | None = field(default=None, init=False, repr=False)  # (N,)
    _count: int = field(default=0, init=False, repr=False)

    name = "samples"
    title = "Each sample of the train probe"
    question = Question.SAMPLES
    summary = "The loss of every sample, what it is taken for, and whether its label is suspected to be wrong."
    formula = r"\ell_i(\theta)"
    undefined = (
        "Loss: the loss is not a mean over samples. Predicted and margin: outputs that are not (N, C) or hold NaN or "
        "Inf, or targets that are not class labels."
    )
    source = (
        "Pleiss, Zhang, Elenberg, Weinberger 2020, Identifying Mislabeled Data using the Area Under the Margin "
        "Ranking, section 3"
    )
    needs = Needs.OUTPUTS
    tier = Tier.DEFAULT
    interval = 100
    chart = Chart.HEATMAP
    keys = "sample"
    parts = {
        "loss": Part("Loss of each sample", "Which samples of the train probe are hardest now.", unit="loss"),
        "predicted": Part(
            "Predicted class of each sample", "What each sample of the train probe is taken for.", unit="class",
            formula=r"\operatorname{argmax}_k z_{ik}",
        ),
        "aum": Part(
            "Mean margin of each sample over the run",
            "Which labels are at odds with what the network learns: far below the others, suspected wrong.",
            unit="output",
            formula=r"\frac{1}{t} \sum_{s \le t} \left( z_{iy}^{(s)} - \max_{k \ne y} z_{ik}^{(s)} \right)",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return loss, predicted class and mean margin by sample."""
        return {
            "loss": or_missing(lambda: by_sample(snapshot.sample_losses)),
            "predicted": or_missing(lambda: _predicted(snapshot)),
            "aum": or_missing(lambda: self._mean_margin(snapshot)),
        }

    def _mean_margin(self, snapshot: Snapshot) -> Reading:
        labels, _ = snapshot.train.labels()
        found = margins(snapshot.train.outputs, labels.to(snapshot.train.outputs.device)).double().cpu()
        if not found.isfinite().all():
            raise Missing(f"{int((~found.isfinite()).sum())} samples have outputs with NaN or Inf")
        self._sum = found if self._sum is None else self._sum + found
        self._count += 1
        mean = self._sum / self._count
        return Reading(mean, keys=sample_keys(len(mean)), details={"num_measurements": self._count})


def _predicted(snapshot: Snapshot) -> Reading:
    labels, _ = snapshot.train.labels()
    if not snapshot.train.outputs.isfinite().all():
        raise Missing("the outputs hold NaN or Inf")
    return Reading(snapshot.train.outputs.argmax(1), keys=sample_keys(len(labels)))
