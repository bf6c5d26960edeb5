"""Which units no longer respond: the share of each layer that is dead, or dormant beside the others.

A unit is a channel of a convolution, a feature of a linear layer: positions and tokens of one unit are taken
together.

Legend: N samples, P positions of a unit, d units of a layer, h_j the output of unit j after the non-linearity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Chart, Question, Reading


def unit_sizes(activations: Tensor, axis: int) -> Tensor:
    """Return the mean of abs(h_j) over samples and positions, (d,) in float64.

    Args:
        activations: (N, ...) after the non-linearity.
        axis: the dimension that counts the units.

    Raises:
        Missing: if they hold NaN or Inf.
    """
    num_units = activations.shape[axis]
    sums = activations.abs()
    behind = tuple(range(axis % activations.ndim + 1, activations.ndim))
    if behind:  # positions first: they lie side by side in memory
        sums = sums.sum(behind, dtype=torch.float64)
    sums = sums.flatten(0, -2).sum(0, dtype=torch.float64)  # (d,)
    if not sums.isfinite().all():
        raise Missing("the activations hold NaN or Inf")
    return sums / (activations.numel() // num_units)


def dead_share(sizes: Tensor) -> float:
    """Return the share of units whose output was 0 everywhere.

    >>> dead_share(torch.tensor([0.0, 0.0, 1.0, 1e-30]))
    0.5
    """
    return float((sizes == 0).double().mean())


def dormant_share(sizes: Tensor, tau: float) -> float:
    """Return the share of units with mean abs(h_j) ≤ τ times the layer's mean of it; 1 for a layer that is dead.

    >>> dormant_share(torch.tensor([0.0, 0.001, 1.0, 1.0]), 0.025)
    0.5
    """
    return float((sizes <= tau * sizes.mean()).double().mean())


def _sizes(snapshot: Snapshot) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the sizes of the units of each layer, and why other layers have none."""
    layers, axes = snapshot.activations, snapshot.unit_axes
    if not layers:
        raise Missing("no non-linearity was found in the forward pass")
    sizes, left_out = {}, {}
    for name, activations in layers.items():
        try:
            sizes[name] = unit_sizes(activations, axes[name])
        except Missing as reason:
            left_out[name] = str(reason)
    if not sizes:
        raise Missing("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
    return sizes, left_out


def _by_layer(snapshot: Snapshot, share_of: Callable[[Tensor], float]) -> Reading:
    sizes, left_out = snapshot.once(_sizes)
    shares = {name: share_of(of_layer) for name, of_layer in sizes.items()}
    num_units = sum(len(of_layer) for of_layer in sizes.values())
    return Reading(
        value=torch.tensor(list(shares.values()), dtype=torch.float64),
        keys=tuple(shares),
        details={
            "all_layers": sum(shares[name] * len(of_layer) for name, of_layer in sizes.items()) / num_units,
            "left_out": left_out,
        },
    )


@dataclass
class DeadUnits(Diagnostic):
    """Share of each layer's units whose output is exactly 0 on every sample and position of the probe.

    Value (L,) in the order of the forward pass, each in [0, 1], exact on the probe: a unit that is dead here may
    fire on other samples. Details: `all_layers`, the share of all units, and `left_out`, layers without a value
    and why. Smooth non-linearities hardly ever give an exact 0: look at `units.dormant`. No options.
    """

    name = "units.dead"
    title = "Dead units per layer"
    question = Question.REPRESENTATION
    summary = "How many units put out 0 whatever they see: they pass no gradient and may never come back."
    formula = r"\frac{1}{d_l}\,\#\{j : h_j(x_i) = 0\ \forall i\}"
    unit = "share of units"
    undefined = "No non-linearity found in the forward pass; a layer whose activations hold NaN or Inf."
    source = "Lyle et al. 2023, Understanding plasticity in neural networks"
    needs = Needs.ACTIVATIONS
    tier = Tier.DEFAULT
    interval = 100
    chart = Chart.HEATMAP
    keys = "layer"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one share per layer."""
        return _by_layer(snapshot, dead_share)


@dataclass
class DormantUnits(Diagnostic):
    """Share of each layer's units with mean abs(h_j) ≤ τ times the layer's mean of it.

    Value (L,) in the order of the forward pass, each in [0, 1], exact on the probe; unchanged when a layer's
    activations are scaled. Details as `units.dead`.

    Args:
        tau: τ; 0.025 is the level usual in work on plasticity.
    """

    name = "units.dormant"
    title = "Dormant units per layer"
    question = Question.REPRESENTATION
    summary = "How many units respond far less than the others of their layer."
    formula = (
        r"\frac{1}{d_l}\,\#\Bigl\{j : \operatorname{mean}_i |h_j(x_i)| \le "
        r"\tau\, \tfrac{1}{d_l}\sum_k \operatorname{mean}_i |h_k(x_i)|\Bigr\}"
    )
    unit = "share of units"
    undefined = DeadUnits.undefined
    source = "Sokar et al. 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning, definition 3.1"
    needs = Needs.ACTIVATIONS
    tier = Tier.DEFAULT
    interval = 100
    chart = Chart.HEATMAP
    keys = "layer"

    tau: float = 0.025

    def __post_init__(self) -> None:
        if not 0 <= self.tau < 1:
            raise ValueError(f"expected 0 <= tau < 1, got tau={self.tau!r} in options of 'units.dormant'; try 0.025")

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one share per layer."""
        return _by_layer(snapshot, lambda sizes: dormant_share(sizes, self.tau))
