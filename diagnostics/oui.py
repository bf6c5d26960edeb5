"""OUI, the overfitting-underfitting indicator: how differently two samples switch a layer's units.

Two published definitions, under their own names and on different scales: at firing rate p, v1 is
4p(1−p) and v2 is 2·min(p, 1−p).

Legend: N samples, d units of a layer, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Chart, Question, Reading, ReferenceLine

_PUBLISHED_BAND = ReferenceLine(
    "published band of v1",
    0.6,
    "Fernández-Hernández et al. 2025, OUI Need to Talk About Weight Decay, on three image CNNs (DenseNet-BC-100, "
    "EfficientNet-B0, ResNet-34); other architectures have other levels, and the band alone is no verdict",
    upper=0.8,
)

# float32 counts whole numbers exactly up to 2^24: a matrix product over 0/1 entries of this many columns
# is exact, whatever the order of its additions.
_EXACT_COLUMNS = 2**24
_CHUNK_ENTRIES = 2**24  # entries of a pattern widened to float32 at a time: 64 MiB


def overlap_v1(patterns: Tensor) -> float:
    r"""Return the mean over sample pairs of min(Hamming(b_p, b_q), ⌊d/2⌋)/⌊d/2⌋, exact, in [0, 1].

    Without any pair while no pair can exceed ⌊d/2⌋: the mean Hamming distance is Σ_j 2 s_j(N−s_j)/(N(N−1)),
    s_j the number of samples that fire unit j. Otherwise over all pairs, from the Gram matrix of the patterns.

    Args:
        patterns: (N, d) booleans, "unit j fires on sample i".

    Raises:
        Missing: if N < 2 or d < 2.

    >>> overlap_v1(torch.tensor([[True, False, False, False], [False, False, False, False]]))
    0.5
    """
    num_samples, num_units = _checked(patterns)
    floor = num_units // 2
    num_fired = patterns.sum(0)  # (d,) s_j
    # By the triangle inequality over the majority pattern, no two samples differ in more units than the two
    # that differ most from it do together.
    majority = 2 * num_fired > num_samples
    if int((patterns ^ majority).sum(1).topk(2).values.sum()) <= floor:
        s = num_fired.double()
        total = float((s * (num_samples - s)).sum())  # Hamming distances over unordered pairs
    else:
        hamming = _hamming(patterns)  # (N, N)
        total = float(hamming.clamp(max=floor).double().sum()) / 2
    return 2 * total / (num_samples * (num_samples - 1) * floor)


def _hamming(patterns: Tensor) -> Tensor:
    """Return all Hamming distances (N, N) as exact integers: |b_p| + |b_q| − 2 b_p·b_q."""
    num_samples, num_units = patterns.shape
    columns = min(max(1, _CHUNK_ENTRIES // num_samples), _EXACT_COLUMNS)
    both = torch.zeros(num_samples, num_samples, dtype=torch.int64, device=patterns.device)
    for start in range(0, num_units, columns):
        b = patterns[:, start : start + columns].float()
        both += _gram(b).round().long()
    fired = patterns.sum(1)
    return fired[:, None] + fired[None, :] - 2 * both


def _gram(b: Tensor) -> Tensor:
    # TF32 keeps 0 and 1 exactly and adds in float32; autocast would round counts above 2048, so it is off.
    with torch.autocast(b.device.type, enabled=False):
        return b @ b.T


def overlap_v2(patterns: Tensor) -> float:
    """Return (1/d) Σ_j min(s_j, N−s_j)/⌊N/2⌋, in [0, 1].

    Args:
        patterns: (N, d) booleans, "the output of unit j is positive on sample i".

    Raises:
        Missing: if N < 2 or d < 2.

    >>> overlap_v2(torch.tensor([[True, False], [False, False]]))
    0.5
    """
    num_samples, _ = _checked(patterns)
    num_fired = patterns.sum(0)
    return float(torch.minimum(num_fired, num_samples - num_fired).double().mean()) / (num_samples // 2)


def _checked(patterns: Tensor) -> tuple[int, int]:
    num_samples, num_units = patterns.shape
    if num_samples < 2:
        raise Missing("one sample in the probe batch: OUI compares samples")
    if num_units < 2:
        raise Missing("the layer has one unit, ⌊d/2⌋ is 0")
    return num_samples, num_units


def firing_patterns(outputs: Tensor) -> Tensor:
    """Return (N, d) booleans `output > 0`, each sample flattened: channels and positions are units."""
    return (outputs > 0).flatten(1)


def _v1_by_layer(snapshot: Snapshot) -> tuple[dict[str, float], dict[str, str]]:
    return _by_layer(snapshot.activations, overlap_v1, "no non-linearity was found in the forward pass")


def _v2_by_layer(snapshot: Snapshot) -> tuple[dict[str, float], dict[str, str]]:
    return _by_layer(snapshot.layer_outputs, overlap_v2, "no linear layer and no convolution was found")


def _by_layer(
    layers: Mapping[str, Tensor], overlap: Callable[[Tensor], float], none_found: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the value of each layer that has one, and the reason for each other."""
    if not layers:
        raise Missing(none_found)
    values, left_out = {}, {}
    for name, outputs in layers.items():
        try:
            if outputs.isnan().any():
                raise Missing("the activations hold NaN")
            values[name] = overlap(firing_patterns(outputs))
        except Missing as reason:
            left_out[name] = str(reason)
    if not values:
        raise Missing("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
    return values, left_out


def _of_layers(values: Mapping[str, float], left_out: Mapping[str, str]) -> Reading:
    array = torch.tensor(list(values.values()), dtype=torch.float64)
    return Reading(
        value=array, keys=tuple(values), details={"mean": float(array.mean()), "left_out": dict(left_out)}
    )  # fmt: skip


@dataclass
class Oui(Diagnostic):
    """OUI v1, the mean over layers (unweighted) of the mean normalised Hamming distance of sample pairs.

    Value in [0, 1], exact over all pairs of the probe batch. A unit is one entry of a sample's activation
    after the non-linearity; convolutions count every position. Details: `layers`, the value by layer, and
    `left_out`, layers without one and why. No options.
    """

    name = "oui"
    title = "Overfitting-underfitting indicator (OUI)"
    question = Question.OVERFITTING
    summary = "How differently samples switch the units: low when samples are treated alike, high when each is alone."
    formula = (
        r"\frac{1}{L}\sum_l \operatorname*{mean}_{p<q} "
        r"\frac{\min(\mathrm{Hamming}(b_p, b_q), \lfloor d_l/2 \rfloor)}{\lfloor d_l/2 \rfloor}"
    )
    undefined = "No non-linearity found, one sample in the probe batch, or layers of one unit only."
    source = "Fernández-Hernández et al. 2025, OUI Need to Talk About Weight Decay (arXiv 2504.17160)"
    needs = Needs.ACTIVATIONS
    tier = Tier.DEFAULT
    interval = 100
    references = (_PUBLISHED_BAND,)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the mean over layers."""
        values, left_out = snapshot.once(_v1_by_layer)
        mean = sum(values.values()) / len(values)
        return Reading(value=mean, details={"layers": values, "left_out": left_out})


@dataclass
class OuiLayers(Diagnostic):
    """OUI v1 of each layer: the terms of the mean `oui`.

    Value (L,) in the order of the forward pass, each in [0, 1], exact. Details: `mean`, and `left_out`,
    layers without a value and why. No options.
    """

    name = "oui.layers"
    title = "OUI per layer"
    question = Question.OVERFITTING
    summary = "Which layers tell samples apart by their units' pattern."
    formula = (
        r"\operatorname*{mean}_{p<q} "
        r"\frac{\min(\mathrm{Hamming}(b_p, b_q), \lfloor d_l/2 \rfloor)}{\lfloor d_l/2 \rfloor}"
    )
    undefined = Oui.undefined
    source = Oui.source
    needs = Needs.ACTIVATIONS
    tier = Tier.DEFAULT
    interval = 100
    chart = Chart.HEATMAP
    keys = "layer"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one value per layer."""
        return _of_layers(*snapshot.once(_v1_by_layer))


@dataclass
class OuiV2(Diagnostic):
    """OUI v2 of each linear layer and convolution: how evenly samples split at each unit.

    Value (L,) in [0, 1], exact; on outputs before the non-linearity. Not v1's scale: 0.8 in v1 is 0.55
    here, so v1's band does not apply. Details: `mean`, and `left_out`, layers without a value and why.
    No options.
    """

    name = "oui.v2"
    title = "OUI v2 per layer"
    question = Question.OVERFITTING
    summary = "How evenly the samples split between firing and not firing each unit; another scale than v1."
    formula = r"\frac{1}{d_l}\sum_j \frac{\min(s_j, N - s_j)}{\lfloor N/2 \rfloor}"
    undefined = "No linear layer and no convolution found, one sample in the probe batch, or layers of one unit only."
    source = "OUIDecay (2025), the per-layer indicator on pre-activations (v2)"
    needs = Needs.ACTIVATIONS
    tier = Tier.DEFAULT
    interval = 100
    chart = Chart.HEATMAP
    keys = "layer"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one value per layer."""
        return _of_layers(*snapshot.once(_v2_by_layer))
