"""Whether wrong labels are being fitted, where the user knows which ones are wrong.

Legend: N samples of the train probe, F the marked ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.schema import Question, Reading

_FIX = "write {'flipped_fit': {'indices': [3, 17]}} with places in the train probe"


@dataclass
class FlippedFit(Diagnostic):
    """Accuracy on train samples whose label is known to be wrong, against the others.

    `flipped` is the share of marked samples that are predicted as their wrong label, `clean` the accuracy on all
    others, `true` the share of marked samples predicted as their true label. Each in [0, 1], with a binomial standard
    error. Clean rising first and flipped after it is memorisation. Give the train probe as tensors, so that places in
    it are known: a probe drawn from a loader is shuffled.

    Args:
        indices: places in the train probe of the samples whose label is wrong.
        true_labels: their right labels, in the same order; None (default) if they are not known.
    """

    indices: Sequence[int] = ()
    true_labels: Sequence[int] | None = None

    name = "flipped_fit"
    title = "Fit of wrong labels"
    question = Question.OVERFITTING
    summary = "Whether samples with labels known to be wrong are fitted like the others."
    formula = r"\frac{1}{|F|}\sum_{i \in F} 1[\hat y_i = y_i]"
    unit = "share of samples"
    undefined = (
        "No samples are marked as wrongly labelled (option indices); places outside the train probe; outputs that are "
        "not (N, C) or targets that are not class labels; clean: all are marked; true: no true labels were given."
    )
    source = "Arpit et al. 2017, A Closer Look at Memorization in Deep Networks (noise labels)"
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 20
    parts = {
        "flipped": Part(
            "Fit of wrong labels", "How many samples with a wrong label are predicted as that label: memorised."
        ),
        "clean": Part(
            "Accuracy without the wrong labels", "How many of the other train samples are classified right.",
            formula=r"\frac{1}{N - |F|}\sum_{i \notin F} 1[\hat y_i = y_i]",
        ),
        "true": Part(
            "Wrong labels seen through", "How many samples with a wrong label are predicted as their true one.",
            formula=r"\frac{1}{|F|}\sum_{i \in F} 1[\hat y_i = y_i^{\text{true}}]",
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        indices = [int(i) for i in self.indices]
        if min(indices, default=0) < 0 or len(set(indices)) < len(indices):
            raise ValueError(
                f"expected different places of at least 0, got {_outline(indices)} in options of 'flipped_fit'; {_FIX}"
            )
        if self.true_labels is not None and len(self.true_labels) != len(indices):
            raise ValueError(
                f"expected one true label per index, got {len(self.true_labels)} for {len(indices)} in options of "
                "'flipped_fit'; give both in the same order"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the accuracy on marked samples, on the others, and against the true labels."""
        if not len(self.indices):
            raise Missing(f"no samples are marked as wrongly labelled; {_FIX}")
        labels, _ = snapshot.train.labels()
        marked = torch.tensor([int(i) for i in self.indices], device=labels.device)
        if int(marked.max()) >= len(labels):
            raise Missing(f"sample {int(marked.max())} is marked, and the train probe has {len(labels)} samples")
        predicted = snapshot.train.outputs.argmax(1)
        is_clean = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        is_clean[marked] = False
        is_right = predicted == labels
        return {
            "flipped": _accuracy(is_right[marked]),
            "clean": or_missing(lambda: _accuracy(is_right[is_clean])),
            "true": or_missing(lambda: _accuracy(predicted[marked] == self._true(labels))),
        }

    def _true(self, labels: Tensor) -> Tensor:
        if self.true_labels is None:
            raise Missing("the true labels were not given (option true_labels)")
        return torch.tensor([int(c) for c in self.true_labels], device=labels.device)


def _accuracy(is_right: Tensor) -> Reading:
    if not len(is_right):
        raise Missing("every sample of the train probe is marked as wrongly labelled")
    share = float(is_right.double().mean())
    return Reading(value=share, error=share_error(share, len(is_right)), details={"num_samples": len(is_right)})


def _outline(indices: Sequence[int]) -> str:
    return str(list(indices)) if len(indices) <= 10 else f"{list(indices[:10])} and {len(indices) - 10} more"
