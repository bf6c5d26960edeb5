"""Scales of weight matrices that scaling rules speak of: ranks by energy, steady state, norm of the output layer.

Legend: L weight matrices, W (m, n) one of them, σ its singular values in descending order, r = min(m, n), η learning
rate, λ weight decay, C classes, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.diagnostics.weight_spectra import weight_spectra
from trainvitals.schema import Chart, Question, Reading, Scale


def rank_of_energy(sigma: Tensor, share: float) -> int:
    """Return the fewest singular values whose squares make up `share` of all, at least 1.

    Args:
        sigma: (r,) in descending order, not all zero.
        share: of Σσ², in (0, 1].

    >>> import torch
    >>> rank_of_energy(torch.tensor([3.0, 1.0, 0.1]), 0.99)  # 9, 1 and 0.01 of 10.01
    2
    """
    energy = sigma.double().square().cumsum(0)
    return min(int((energy < share * energy[-1]).sum()) + 1, len(sigma))


def rms_to_inf(weight: Tensor) -> float:
    """Return √D max_c ‖w_c‖: the most that W makes of an input of root mean square 1 in one output.

    >>> import torch
    >>> rms_to_inf(torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))
    10.0
    """
    return math.sqrt(weight.shape[1]) * float(weight.double().norm(dim=1).max())


@dataclass
class EnergyRank(Diagnostic):
    """The fewest singular values of each weight matrix that hold 99 % of Σσ² = ‖W‖²_F.

    Value (L,), whole numbers from 1 to r; `details["of"]` has r of each. Squares, so that the count is what a
    truncated matrix needs to have a relative error below √(1 − share) in the Frobenius norm. Matrices as in
    `weights.spectral`.

    Args:
        share: of Σσ², in (0, 1).
    """

    share: float = 0.99

    name: ClassVar = "weights.r99"
    title: ClassVar = "Singular values that hold 99 % of the energy"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "How many directions of each weight matrix hold 99 % of its squared norm."
    formula: ClassVar = r"\min\{k : \textstyle\sum_{i \le k} \sigma_i^2 \ge 0.99 \sum_i \sigma_i^2\}"
    unit: ClassVar = "singular values"
    undefined: ClassVar = "No weight matrix that is finite, not zero, and has at most 4096 singular values."
    source: ClassVar = (
        "Jolliffe 2002, Principal Component Analysis, section 6.1.1 (cumulative share); bound: Eckart, Young 1936"
    )
    needs: ClassVar = Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "parameter"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(
                f"expected a share between 0 and 1, got share={self.share!r} in options of 'weights.r99'; "
                "leave it out for 0.99"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one count per weight matrix."""
        spectra = snapshot.once(weight_spectra)
        left_out = dict(spectra.left_out) | {
            name: "it is zero" for name, sigma in spectra.values.items() if not sigma.any()
        }
        kept = {name: sigma for name, sigma in spectra.values.items() if name not in left_out}
        ranks = {name: float(rank_of_energy(sigma, self.share)) for name, sigma in kept.items()}
        reading = by_layer(ranks, left_out, "the model has no weight matrix")
        of = {name: len(sigma) for name, sigma in kept.items()}
        return Reading(reading.value, keys=reading.keys, details={**reading.details, "of": of})


@dataclass
class SteadyState(Diagnostic):
    """σ_max/√(η/λ) of each weight matrix under AdamW: constant once training is in its steady state.

    With decoupled weight decay the singular values settle at a level in proportion to √(η/λ), with a shape that does
    not depend on it: while the learning rate stays, a value that still moves says that the matrix is not there yet.
    Between widths d the paper finds it to grow about as d^0.75. Value (L,), exact, for the rates as they are now;
    under a schedule σ lags behind them. Matrices as in `weights.spectral`. No options.
    """

    name: ClassVar = "weights.steady"
    title: ClassVar = "Largest singular value over its steady scale"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "Whether weight decay and learning rate have brought each matrix to its steady size."
    formula: ClassVar = r"\sigma_{\max}(W_l) / \sqrt{\eta/\lambda}"
    unit: ClassVar = "norm of weights"
    undefined: ClassVar = (
        "No optimiser, or another than AdamW; no finite weight matrix of at most 4096 singular values that it trains "
        "with a learning rate and a weight decay above 0."
    )
    source: ClassVar = "Fan, Liu, Zhao, Yuan, Gu 2025, Robust Layerwise Scaling Rules by Proper Weight Decay Tuning"
    needs: ClassVar = Needs.PARAMETERS | Needs.OPTIMIZER_STATE
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    scale: ClassVar = Scale.LOG
    keys: ClassVar = "parameter"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one ratio per weight matrix."""
        optimizer = snapshot.optimizer
        if optimizer.kind != "AdamW":
            raise Missing(
                f"the steady size √(η/λ) is that of AdamW's decoupled decay; the optimiser is {optimizer.kind}"
            )
        spectra, values = snapshot.once(weight_spectra), {}
        left_out = dict(spectra.left_out)
        scales = {
            name: (float(group.options["lr"]), float(group.options["weight_decay"]))
            for group in optimizer.groups
            for name in group.names
        }
        for name, sigma in spectra.values.items():
            rate, decay = scales.get(name, (0.0, 0.0))
            if rate > 0 and decay > 0:
                values[name] = float(sigma[0]) / math.sqrt(rate / decay)
            else:
                left_out[name] = "its learning rate or its weight decay is 0"
        return by_layer(values, left_out, "the model has no weight matrix")


@dataclass
class OutputNorm(Diagnostic):
    """The RMS→∞ operator norm of the output layer, √D max_c ‖w_c‖.

    The largest output, in size, that the last linear layer makes of features with a root mean square of 1 (its bias
    left out). Found to have one value at the best pair of learning rate and batch size, across sizes of model and
    data. Value ≥ 0, exact. Details: `layer`, its name, and `row`, the output of the largest row. No options.
    """

    name: ClassVar = "weights.rms_inf"
    title: ClassVar = "RMS→∞ norm of the output layer"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "How large an output the last layer can make of features of unit root mean square."
    formula: ClassVar = (
        r"\max_{\lVert h\rVert_{\text{rms}} = 1} \lVert W h\rVert_\infty = \sqrt{D}\,\max_c \lVert w_c\rVert"
    )
    undefined: ClassVar = "No linear layer is called, or its weight holds NaN or Inf."
    source: ClassVar = "Filatov et al. 2025, Optimal Scaling Needs Optimal Norm"
    needs: ClassVar = Needs.FEATURES
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 100
    scale: ClassVar = Scale.LOG

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the norm."""
        classifier = snapshot.classifier
        if not classifier.weight.isfinite().all():
            raise Missing("the weight of the last linear layer holds NaN or Inf")
        row = int(classifier.weight.double().norm(dim=1).argmax())
        return Reading(rms_to_inf(classifier.weight), details={"layer": classifier.name, "row": row})
