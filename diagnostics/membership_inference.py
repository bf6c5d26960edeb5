"""How well the loss of a sample tells whether the network was trained on it.

Legend: N train samples (members), M held-out samples, ℓ the loss of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Question, Reading, ReferenceLine


def auc(members: np.ndarray, others: np.ndarray) -> tuple[float, float | None]:
    """Return P(a member's score > another's) + P(equal)/2 over all pairs, and its standard error by DeLong.

    The error is None with fewer than two samples on a side, and 0 where no pair is out of order.

    Args:
        members: (N,) scores.
        others: (M,) scores.

    >>> auc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))[0]
    0.875
    """
    N, M = len(members), len(others)
    ranks = rankdata(np.concatenate([members, others]))  # ties share the middle of their ranks
    above = (ranks[:N] - rankdata(members)) / M  # (N,) share of others below each member
    below = 1 - (ranks[N:] - rankdata(others)) / N  # (M,) share of members above each other
    error = None
    if min(N, M) > 1:
        error = float(np.sqrt(above.var(ddof=1) / N + below.var(ddof=1) / M))
    return float(above.mean()), error


@dataclass
class MembershipInference(Diagnostic):
    """AUC of −ℓ as a score for "was in the train data", train probe against held-out probe.

    Value in [0, 1]: the chance that a train sample has the lower loss of a random pair. 0.5 is no leak; it grows with
    overfitting. `error` is DeLong's standard error, for the data that both probes were drawn from; it is 0 at 0 and
    at 1, where it says too little. Both probes must be drawn alike: a difference between the data sets looks like
    membership. No options.
    """

    name = "mia_auc"
    title = "Membership inference by the loss (AUC)"
    question = Question.OVERFITTING
    summary = "How well a sample's loss tells train from held-out data: 0.5 is not at all, 1 is always."
    formula = r"P(\ell_i < \ell_j) + \tfrac12 P(\ell_i = \ell_j),\ i \in \text{train},\ j \in \text{held-out}"
    unit = "probability"
    undefined = "No held-out probe; a loss that has no value for one sample alone, or is not their mean; a loss of NaN."
    source = (
        "Yeom et al. 2018, Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting, section 3 "
        "(the loss as the attack); error: DeLong, DeLong, Clarke-Pearson 1988"
    )
    needs = Needs.OUTPUTS | Needs.HELDOUT
    tier = Tier.FULL
    interval = 50
    references = (ReferenceLine("no leak", 0.5, "by the definition"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the AUC."""
        members, others = snapshot.sample_losses, snapshot.heldout_sample_losses
        if members.isnan().any() or others.isnan().any():
            raise Missing("the loss of a sample is NaN")
        value, error = auc(-members.cpu().numpy(), -others.cpu().numpy())
        return Reading(value=value, error=error)
