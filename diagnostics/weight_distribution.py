"""How the entries of the weights are distributed, and how far that distribution has moved since the start.

Legend: L weight tensors of two dimensions or more, θ_l one of them with P_l entries, G bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale

_NOTHING = "the model has no weight matrix"


def kurtosis(weight: Tensor) -> float:
    """Return the fourth central moment over the squared variance, ≥ 1: 3 for a normal distribution.

    >>> kurtosis(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    1.0
    """
    squared = (weight.double() - weight.double().mean()).square()
    return float(squared.square().mean() / squared.mean().square())


def near_zero(weight: Tensor, fraction: float) -> float:
    """Return the share of entries smaller than `fraction` of the root mean square.

    >>> near_zero(torch.tensor([3.0, 0.0, 4.0, 0.0]), 0.01)
    0.5
    """
    bound = fraction * weight.double().square().mean().sqrt()
    return float((weight.double().abs() < bound).double().mean())


def wasserstein(one: Tensor, other: Tensor) -> float:
    """Return W₁ between the entries of two tensors of one size: the mean distance of the sorted entries.

    >>> wasserstein(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 0.0]))
    1.0
    """
    a, b = (tensor.double().flatten().sort().values for tensor in (one, other))
    return float((a - b).abs().mean())


def matrices_of(snapshot: Snapshot) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights of two dimensions or more that are finite, and the reasons of the others."""
    weights = {name: p for name, p in snapshot.parameters.items() if p.ndim > 1 and p.numel()}
    left_out = {name: "it holds NaN or Inf" for name, p in weights.items() if not p.isfinite().all()}
    return {name: p for name, p in weights.items() if name not in left_out}, left_out


def _by_matrix(snapshot: Snapshot, number: Callable[[Tensor], float], *, needs_spread: bool = False) -> Reading:
    weights, left_out = matrices_of(snapshot)
    values = {}
    for name, weight in weights.items():
        if needs_spread and bool((weight == weight.flatten()[0]).all()):
            left_out[name] = "all its entries are equal"
        else:
            values[name] = number(weight)
    return by_layer(values, left_out, _NOTHING)


@dataclass
class WeightDistribution(Diagnostic):
    """Kurtosis, share near zero and largest size of the entries of each weight matrix.

    `kurtosis`: fourth central moment over squared variance, 3 for a normal distribution, large where few entries
    stand out. `near_zero`: the share of entries below a fraction of the root mean square; 0.8 % of a normal
    distribution lie below 0.01 of it. `largest`: max abs(θ). Each (L,), exact, over tensors of two dimensions or
    more, by parameter name; `details["left_out"]` names the others.

    Args:
        fraction: of the tensor's root mean square below which an entry counts as near zero; our choice.
    """

    fraction: float = 0.01

    name: ClassVar = "weights.distribution"
    title: ClassVar = "Distribution of the weights"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "Whether few weights of a layer stand out, and how many are as good as zero."
    formula: ClassVar = r"m_4 / m_2^2"
    undefined: ClassVar = "No weight matrix that is finite; kurtosis: all its entries are equal."
    source: ClassVar = (
        "DeCarlo 1997, On the Meaning and Use of Kurtosis (kurtosis of a distribution); of weights: Cakaj, Mehnert, "
        "Yang 2023, Weight Compander: A Simple Weight Reparameterization for Regularization (large weights)"
    )
    needs: ClassVar = Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "parameter"
    parts: ClassVar = {
        "kurtosis": Part(
            "Kurtosis of the weights per layer", "Whether few weights of a layer are much larger than the rest.",
            scale=Scale.LOG, references=(ReferenceLine("normal distribution", 3.0, "by the definition"),),
        ),
        "near_zero": Part(
            "Weights near zero per layer", "How many weights of a layer are as good as zero.",
            unit="share of weights", formula=r"\frac{1}{P_l}\,\#\{p : |\theta_p| < f \operatorname{rms}(\theta_l)\}",
        ),
        "largest": Part(
            "Largest weight per layer", "The size of the largest weight of each layer.",
            unit="weight", formula=r"\max_p |\theta_p|", scale=Scale.LOG,
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(
                f"expected a fraction between 0 and 1, got fraction={self.fraction!r} in options of "
                "'weights.distribution'; leave it out for 0.01"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return one number per weight matrix for each part."""
        return {
            "kurtosis": or_missing(lambda: _by_matrix(snapshot, kurtosis, needs_spread=True)),
            "near_zero": or_missing(lambda: _by_matrix(snapshot, lambda w: near_zero(w, self.fraction))),
            "largest": or_missing(lambda: _by_matrix(snapshot, lambda w: float(w.abs().max()))),
        }


@dataclass
class WeightHistogram(Diagnostic):
    """Density of the entries of all weight matrices together, over G bins from −m to m, m the largest abs(θ).

    Value (G,), exact; it integrates to 1 over the bins. `details["grid"]` holds the bins' centres,
    `details["edges"]` their G + 1 edges. Matrices with NaN or Inf are left out, `details["left_out"]` names them.

    Args:
        num_bins: G.
    """

    num_bins: int = 200

    name: ClassVar = "weights.histogram"
    title: ClassVar = "Histogram of the weights"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "How large the weights are: how many of each size."
    formula: ClassVar = r"\frac{\#\{p : \theta_p \in \text{bin}\}}{P \cdot \text{width}}"
    unit: ClassVar = "1 / weight"
    undefined: ClassVar = "No weight matrix that is finite, or all weights are zero."
    source: ClassVar = "Pearson 1895, Contributions to the Mathematical Theory of Evolution II (histogram)"
    needs: ClassVar = Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.WATERFALL
    keys: ClassVar = "grid"

    def __post_init__(self) -> None:
        if type(self.num_bins) is not int or self.num_bins < 2:
            raise ValueError(
                f"expected a whole number of at least 2, got num_bins={self.num_bins!r} in options of "
                "'weights.histogram'; leave it out for 200"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the density on its grid, which stands in `details`."""
        weights, left_out = matrices_of(snapshot)
        if not weights:
            raise Missing(_NOTHING if not left_out else "every weight matrix holds NaN or Inf")
        largest = max(float(w.abs().max()) for w in weights.values())
        if largest == 0:
            raise Missing("all weights are zero")
        counts = sum(
            torch.histc(w.double(), self.num_bins, -largest, largest).cpu() for w in weights.values()
        )  # (G,), entries on an edge go to the bin above, the last edge's to the last bin
        width = 2 * largest / self.num_bins
        edges = torch.linspace(-largest, largest, self.num_bins + 1, dtype=torch.float64)
        density = counts / (width * sum(w.numel() for w in weights.values()))
        details = {"grid": (edges[1:] + edges[:-1]) / 2, "edges": edges}
        return Reading(density, details={**details, **({"left_out": left_out} if left_out else {})})


@dataclass
class WeightWasserstein(Diagnostic):
    """W₁ between the entries of each weight matrix now and at the start of the run.

    The mean distance between the sorted entries: how far the distribution of sizes has moved, whichever weight has
    which size; at most the mean distance that the weights themselves have moved. Value (L,), exact, over tensors of
    two dimensions or more. No options.
    """

    name: ClassVar = "weights.wasserstein"
    title: ClassVar = "Distance of the distribution of the weights from the start"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "How far the sizes of each layer's weights have moved, whichever weight has which size."
    formula: ClassVar = r"\frac{1}{P_l}\sum_p |\theta_{(p)}(t) - \theta_{(p)}(0)|"
    unit: ClassVar = "weight"
    undefined: ClassVar = "The start is not known, or has other shapes; no weight matrix that is finite."
    source: ClassVar = (
        "Vallender 1974, Calculation of the Wasserstein distance between probability distributions on the line; of "
        "weights: Lewandowski et al. 2024, Learning Continually by Spectral Regularization"
    )
    needs: ClassVar = Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    is_slow: ClassVar = True  # sorts all weights
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "parameter"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one distance per weight matrix."""
        weights, left_out = matrices_of(snapshot)
        start, values = snapshot.initial_parameters, {}
        for name, weight in weights.items():
            if name not in start or start[name].shape != weight.shape:
                raise Missing(f"the model at the start of the run has no {name!r} of shape {tuple(weight.shape)}")
            values[name] = wasserstein(weight, start[name].to(weight.device))
        return by_layer(values, left_out, _NOTHING)
