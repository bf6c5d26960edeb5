"""How many units fire for a sample, and how many different ones: units that say the same count once.

A unit is a channel of a convolution, a feature of a linear layer, as in `units.dead`: its positions and tokens are
rows of their own.

Legend: N samples, R rows (samples × positions), d units of a layer, h_j the output of unit j after the non-linearity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.diagnostics.evaluation import drawn
from trainvitals.schema import Chart, Question, Reading

_MAX_ROWS = 2**14  # of a layer: positions of an image are many, and much alike
_CHUNK_ENTRIES = 2**22  # widened to float64 at a time


def correlations(rows: Tensor) -> Tensor:
    """Return the correlations (d, d) of the columns of rows (R, d) in float64, 0 for columns that are constant."""
    d = rows.shape[1]
    chunks = rows.split(max(1, _CHUNK_ENTRIES // max(1, d)))
    mean = sum(chunk.double().sum(0) for chunk in chunks) / len(rows)
    gram = torch.zeros(d, d, dtype=torch.float64, device=rows.device)
    for chunk in chunks:
        centred = chunk.double() - mean
        gram += centred.T @ centred
    deviations = gram.diagonal().sqrt()
    constant = deviations <= 10 * torch.finfo(rows.dtype).eps * len(rows) ** 0.5 * rows.abs().amax(0).double()
    scales = torch.where(constant, torch.inf, deviations)
    return gram / scales[:, None] / scales[None, :]


def distinct_units(rows: Tensor, threshold: float) -> Tensor:
    """Return which units are active at all, once for each group of units correlated by more than a threshold.

    In the order of the units: one is left out while another active one, not left out yet, is correlated with it.

    Args:
        rows: (R, d) outputs of the units.
        threshold: on abs(correlation).

    >>> h = torch.tensor([[1.0, 2.0, 0.0, 1.0], [3.0, 6.0, 0.0, 0.0], [2.0, 4.0, 0.0, 0.0]])
    >>> distinct_units(h, 0.95).tolist()
    [1, 3]
    """
    active = (rows > 0).any(0).nonzero().flatten()
    alike = correlations(rows[:, active]).abs() > threshold
    alike.fill_diagonal_(False)
    alike = alike.cpu()
    kept = torch.ones(len(active), dtype=torch.bool)
    for unit in alike.any(1).nonzero().flatten().tolist():
        kept[unit] = not bool((alike[unit] & kept).any())
    return active[kept.to(active.device)]


def _rows(activations: Tensor, axis: int) -> Tensor:
    """Return activations (N, ...) as rows (R, d), some of them if they are many."""
    rows = activations.movedim(axis, -1).flatten(0, -2)
    if not rows.isfinite().all():
        raise Missing("the activations hold NaN or Inf")
    return rows[drawn(torch.arange(len(rows), device=rows.device), _MAX_ROWS)]


@dataclass
class UnitSparsity(Diagnostic):
    """Share of a layer's units that are active (h_j > 0) for a sample, on average: all, and distinct ones alone.

    Each part is (L,) in [0, 1], in the order of the forward pass; `distinct` ≤ `active`. It counts a group of units
    whose outputs correlate by more than 0.95 as one, as in the paper's code, where which of them stays depends on
    their order. There every position of a convolution is a unit; here a channel is, its positions are further
    samples. Exact on the probe up to 16,384 rows (samples × positions) and `max_units` units of a layer; of more, so
    many are drawn by a fixed seed. Details: `left_out`, layers without a value and why.

    Args:
        correlation: abs(correlation) above which two units are one; 0.95 as in the paper.
        max_units: of a layer that are looked at; 1,000 as in the paper's code.
    """

    name = "units.sparsity"
    title = "Active units per layer"
    question = Question.REPRESENTATION
    summary = "Which share of the units fires for a sample, and how many of them say different things."
    formula = r"\frac{1}{R\,d_l}\,\#\{(i, j) : h_j(x_i) > 0,\ j \in \mathrm{distinct}\}"
    unit = "share of units"
    undefined = "No non-linearity found in the forward pass; a layer whose activations hold NaN or Inf."
    source = "Andriushchenko et al. 2023, SGD with Large Step Sizes Learns Sparse Features, section 4 and its code"
    needs = Needs.ACTIVATIONS
    tier = Tier.FULL
    interval = 200
    chart = Chart.HEATMAP
    keys = "layer"
    parts = {
        "active": Part("Active units per layer", "Which share of a layer's units fires for a sample."),
        "distinct": Part(
            "Distinct active units per layer",
            "Which share of a layer's units fires for a sample, units that say the same counted once.",
        ),
    }

    correlation: float = 0.95
    max_units: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.correlation < 1:
            raise ValueError(
                f"expected 0 < correlation < 1, got correlation={self.correlation!r} in options of "
                "'units.sparsity'; try 0.95"
            )
        if isinstance(self.max_units, bool) or not isinstance(self.max_units, int) or self.max_units < 1:
            raise ValueError(
                f"expected a whole number of at least 1, got max_units={self.max_units!r} in options of "
                "'units.sparsity'; leave it out for 1000"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return both shares of each layer."""
        layers, axes = snapshot.activations, snapshot.unit_axes
        active: dict[str, float] = {}
        distinct: dict[str, float] = {}
        left_out: dict[str, str] = {}
        for name, activations in layers.items():
            try:
                rows = _rows(activations, axes[name])
            except Missing as reason:
                left_out[name] = str(reason)
                continue
            active[name] = float((rows > 0).double().mean())
            some = rows[:, drawn(torch.arange(rows.shape[1], device=rows.device), self.max_units)]
            kept = distinct_units(some, self.correlation)
            distinct[name] = float((some[:, kept] > 0).sum()) / some.numel()
        nothing = "no non-linearity was found in the forward pass"
        return {"active": by_layer(active, left_out, nothing), "distinct": by_layer(distinct, left_out, nothing)}
