"""What a unit is worth: how much the loss would rise if it were silenced, to first order.

A unit is a channel of a convolution, a feature of a linear layer: positions and tokens of one unit are taken together.

Legend: N samples, d units of a layer, h_j the output of unit j after the non-linearity, g_j the gradient of the mean
loss by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.diagnostics.feature_rank import participation_ratio
from trainvitals.schema import Chart, Question, Reading, Scale


def _reason(utilities: Tensor | None) -> str | None:
    if utilities is None:
        return "no gradient flows to it: no trainable weight lies before it"
    if not utilities.isfinite().all():
        return "its utilities hold NaN or Inf"
    return None


@dataclass
class UnitUtility(Diagnostic):
    """Utility of units, −Σ_i g_ij h_ij: the rise of the mean loss if unit j were silenced, to first order.

    `mean` (L,) is the mean over units of its absolute value; `share` (L,) in [1/d, 1] is the participation ratio of
    the absolute values over d: in which share of the units the layer's utility lies, 1 when all are worth the same.
    Exact on the probe as a first-order term, which is the rise itself where the loss is linear in h; of this moment,
    not averaged over steps as the paper's optimiser does. Details: `left_out`, layers without a value and why.
    No options.
    """

    name = "units.utility"
    title = "Utility of units per layer"
    question = Question.REPRESENTATION
    summary = "How much the loss rests on a layer's units, and on how many of them."
    formula = r"u_j = -\sum_i g_{ij} h_{ij},\ \operatorname{mean}_j |u_j|,\ (\sum_j |u_j|)^2 \big/ (d \sum_j u_j^2)"
    undefined = (
        "No non-linearity found in the forward pass; a layer that no gradient flows to, with NaN or Inf, or, for the "
        "share, whose units are all worth nothing."
    )
    source = "Elsayed, Mahmood 2023, Utility-based Perturbed Gradient Descent, section 3 (feature utility) and its code"
    needs = Needs.OUTPUTS
    tier = Tier.FULL
    interval = 200
    chart = Chart.HEATMAP
    keys = "layer"
    passes = "one forward and one backward pass of its own"
    is_slow = True
    parts = {
        "mean": Part(
            "Mean utility of units per layer", "How much the loss would change by silencing a unit, on average.",
            unit="loss", scale=Scale.LOG, formula=r"\operatorname{mean}_j \bigl|\sum_i g_{ij} h_{ij}\bigr|",
        ),
        "share": Part(
            "Share of units that the loss rests on", "In which share of a layer's units its utility lies.",
            unit="share of units", formula=r"(\sum_j |u_j|)^2 \big/ (d \sum_j u_j^2),\ u_j = -\sum_i g_{ij} h_{ij}",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return mean and share of each layer."""
        found = snapshot.unit_utilities
        left_out = {name: reason for name, u in found.items() if (reason := _reason(u)) is not None}
        sizes = {name: u.abs() for name, u in found.items() if u is not None and name not in left_out}
        useful = {name: u for name, u in sizes.items() if u.any()}
        useless = {name: "silencing any one unit changes nothing" for name in sizes if name not in useful}
        means = {name: float(u.mean()) for name, u in sizes.items()}
        shares = {name: participation_ratio(u) / len(u) for name, u in useful.items()}
        nothing = "no non-linearity was found in the forward pass"
        return {
            "mean": or_missing(lambda: by_layer(means, left_out, nothing)),
            "share": or_missing(lambda: by_layer(shares, left_out | useless, nothing)),
        }
