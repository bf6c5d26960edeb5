"""How many held-out samples a loss threshold takes for train data, where it finds most of the train data.

Legend: N train samples (members), M held-out samples, ℓ the loss of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.generalization_gap import share_error
from trainvitals.schema import Question, Reading


def threshold_of(members: Tensor, share: float) -> float:
    """Return the smallest loss of a member that at least `share` of the members (N,) are at or below.

    >>> import torch
    >>> threshold_of(torch.tensor([4.0, 1.0, 3.0, 2.0]), 0.75)
    3.0
    """
    place = math.ceil(share * len(members) - 1e-9)  # 0.95 · 20 is a little above 19
    return float(members.sort().values[max(place, 1) - 1])


@dataclass
class MembershipErrors(Diagnostic):
    """False-positive rate of "loss at most t" as a sign of membership, at the t that finds a share of the members.

    Value in [0, 1]: the share of the held-out probe that the threshold takes for train data, when it finds at least
    the share `true_positives` of the train probe. That share itself is no leak; near 0 the losses tell almost all
    held-out samples apart. `error` is the binomial standard error of the held-out share at this threshold; the
    threshold's own scatter comes on top. Details: `threshold`, and `true_positives`, the share of members found,
    which ties lift. Both probes must be drawn alike.

    Args:
        true_positives: share of the train probe that has to be found, in (0, 1]; 0.95 is usual for detectors.
    """

    true_positives: float = 0.95

    name = "mia.fpr"
    title = "Membership inference: false positives"
    question = Question.OVERFITTING
    summary = "How many held-out samples look like train data to a threshold that finds 95 % of the train data."
    formula = r"\frac{1}{M}\,\#\{j : \ell_j \le t\},\ t = \min\{t : \#\{i : \ell_i \le t\} \ge 0.95 N\}"
    unit = "share of samples"
    undefined = "No held-out probe; a loss that has no value for one sample alone, or is not their mean; a loss of NaN."
    source = (
        "Hintersdorf, Struppek, Kersting 2022, To Trust or Not To Trust Prediction Scores for Membership Inference "
        "Attacks (false positives); the 95 % level: Liang, Li, Srikant 2018, Enhancing the Reliability of "
        "Out-of-distribution Image Detection, section 4 (FPR at 95 % TPR)"
    )
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50

    def __post_init__(self) -> None:
        if not 0 < self.true_positives <= 1:
            raise ValueError(
                f"expected a share above 0 and at most 1, got true_positives={self.true_positives!r} in options of "
                "'mia.fpr'; leave it out for 0.95"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the false-positive rate."""
        members, others = snapshot.sample_losses, snapshot.heldout_sample_losses
        if members.isnan().any() or others.isnan().any():
            raise Missing("the loss of a sample is NaN")
        threshold = threshold_of(members, self.true_positives)
        share = float((others <= threshold).double().mean())
        found = float((members <= threshold).double().mean())
        return Reading(
            share, share_error(share, len(others)), details={"threshold": threshold, "true_positives": found}
        )  # fmt: skip
