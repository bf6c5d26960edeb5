"""Which samples moved the loss: those whose loss rose and fell most since the last measurement.

Legend: N samples of the train probe, Δℓ_i change of sample i's loss since the last measurement, k samples of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.batch_loss import mean_gradient
from trainvitals.diagnostics.gradient_groups import gram_of, pairwise_cosines
from trainvitals.schema import Question, Reading, ReferenceLine


def movers(changes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the places of the samples whose loss rose most, and fell most: at most `count` each, farthest first.

    Args:
        changes: (N,) Δℓ.
        count: k.

    >>> [found.tolist() for found in movers(torch.tensor([0.1, -3.0, 2.0, 0.0, 5.0]), 2)]
    [[4, 2], [1]]
    """
    rising, falling = ((sign * changes).topk(min(count, len(changes))).indices for sign in (1.0, -1.0))
    return rising[changes[rising] > 0], falling[changes[falling] < 0]


@dataclass
class LossMovers(Diagnostic):
    """How much of the change of the loss a few samples carry, and whether they pull against each other.

    Between this measurement and the last, `share` of Σ_i abs(Δℓ_i) on the k samples whose loss rose most and the k
    whose loss fell most; with changes of equal size it is 2k/N, `details["even"]`. `cosine`: between the gradients of
    the two groups' mean losses, now; near −1 they are opposed. Details of `share`: `rose` and `fell`, the samples'
    places in the train probe, farthest first. With `every=1` it is the paper's: one step. It remembers the losses of
    its last measurement.

    Args:
        fraction: of the train probe in each group, k = fraction · N rounded, at least 1; 2.5 % as tried for the
            phenomenon on 800 samples.
    """

    fraction: float = 0.025
    _losses: Tensor | None = field(default=None, init=False, repr=False)  # (N,) on the CPU
    _step: int | None = field(default=None, init=False, repr=False)

    name = "loss.movers"
    title = "Samples that move the loss"
    question = Question.GRADIENTS
    summary = "Whether a few samples carry the change of the loss, in opposite directions."
    formula = r"\sum_{i \in \text{rose} \cup \text{fell}} |\Delta\ell_i| \big/ \sum_i |\Delta\ell_i|"
    undefined = (
        "The first measurement; a loss that has no value for one sample alone, is not their mean, or is not finite; "
        "no sample's loss has changed. Cosine: none has risen, or none has fallen; a gradient of zero or not finite; "
        "batches that cannot be joined and cut."
    )
    source = (
        "Rosenfeld, Risteski 2024, Outliers with Opposing Signals Have an Outsized Effect on Neural Network "
        "Optimization, section 2 (samples with the largest change of loss)"
    )
    needs = Needs.OUTPUTS | Needs.PARAMETERS
    tier = Tier.FULL
    is_slow = True  # a gradient of each of the two groups
    interval = 20
    passes = "a forward and a backward pass over the samples that moved most"
    parts = {
        "share": Part(
            "Share of the change of the loss on a few samples",
            "How much of the samples' changes of loss those that rose and fell most carry.", unit="share",
        ),
        "cosine": Part(
            "Cosine of the samples that rose and fell",
            "Whether those whose loss rose most and fell most pull the weights in opposite directions.",
            formula=r"\cos(\nabla L_{\text{rose}}, \nabla L_{\text{fell}})",
            references=(ReferenceLine("opposed", -1.0, "by the definition"),),
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 0.5:
            raise ValueError(
                f"expected a share above 0 and at most a half, got fraction={self.fraction!r} in options of "
                "'loss.movers'; leave it out for 0.025"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the share and the cosine."""
        losses, before, step = snapshot.sample_losses.cpu(), self._losses, self._step
        if not losses.isfinite().all():
            self._losses = None
            raise Missing("the loss of a sample is NaN or Inf")
        self._losses, self._step = losses, snapshot.step
        if before is None or len(before) != len(losses):
            raise Missing("this is the first measurement: there is no earlier loss to compare with")
        changes = losses - before
        rose, fell = movers(changes, max(1, round(self.fraction * len(losses))))
        if not len(rose) and not len(fell):
            raise Missing("no sample's loss has changed since the last measurement")
        details = {"rose": rose.double(), "fell": fell.double(), "since": step,
                   "even": (len(rose) + len(fell)) / len(losses)}  # fmt: skip
        return {
            "share": Reading(_share(changes, rose, fell), details=details),
            "cosine": or_missing(lambda: _cosine(snapshot, rose, fell, details)),
        }


def _share(changes: Tensor, rose: Tensor, fell: Tensor) -> float:
    moved = changes[torch.cat([rose, fell])].abs().sum()
    return float(moved / changes.abs().sum())


def _cosine(snapshot: Snapshot, rose: Tensor, fell: Tensor, details: Mapping[str, Any]) -> Reading:
    for group, word in ((rose, "risen"), (fell, "fallen")):
        if not len(group):
            raise Missing(f"no sample's loss has {word} since the last measurement")
    values = list(snapshot.parameters.values())
    found = []
    for group in (rose, fell):
        parts = mean_gradient(snapshot.losses_of(group.tolist()), values)
        found.append(torch.cat([part.reshape(-1) for part in parts]))
    gram = gram_of(found)
    if not gram.isfinite().all():
        raise Missing("the gradient of a group holds NaN or Inf")
    if not bool((gram.diagonal() > 0).all()):
        raise Missing("the gradient of a group is zero: it has no direction")
    return Reading(float(pairwise_cosines(gram)[0, 1]), details={"since": details["since"]})
