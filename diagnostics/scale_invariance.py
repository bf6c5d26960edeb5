"""Which weights' length does not matter to the function, and how large a step is on those.

Legend: L weight tensors of two dimensions or more, W one of them, N samples, f the model's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.diagnostics.weight_norms import frobenius
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale

# Powers of two, so that scaling itself does not round.
FACTORS = (0.5, 2.0)
# Below this change, a second look tells an invariant weight from one that the output does not see at all.
_SMALL = 0.05
_HALF = (torch.bfloat16, torch.float16)
_BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def relative_change(outputs: Tensor, reference: Tensor) -> float:
    """Return ‖f' − f‖/‖f‖ over all outputs, in float64.

    Raises:
        Missing: if the reference is zero or not finite.
    """
    norm = frobenius(reference)
    if not 0 < norm < float("inf"):
        raise Missing("the model's outputs are " + ("zero everywhere" if norm == 0 else "not finite"))
    return frobenius(outputs.double() - reference.double()) / norm


def output_changes(
    outputs: Callable[[], Tensor], weights: dict[str, Tensor], factors: Sequence[float], generator: torch.Generator
) -> tuple[dict[str, float], dict[str, str]]:
    """Return by name the largest relative change of the outputs under W → cW, and the reasons of those left out.

    A weight that the outputs do not see (behind dead units, or a branch multiplied by zero) changes nothing
    whatever is done to it: where scaling changes little, noise of the weight's own size must change something.

    Args:
        outputs: gives the outputs at the present values of `weights`.
        weights: tensors that may be written to; they are put back.
        factors: the values of c.
        generator: of the noise.
    """
    reference = outputs()
    changes: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, weight in weights.items():
        kept = weight.clone()
        if not kept.any():
            left_out[name] = "it is zero"
            continue

        def change(value: Tensor, weight: Tensor = weight, kept: Tensor = kept) -> float:
            try:
                weight.copy_(value)
                return relative_change(outputs(), reference)
            finally:
                weight.copy_(kept)

        found = max(change(kept * factor) for factor in factors)
        noise = torch.randn(kept.shape, generator=generator, dtype=torch.float64).to(kept.device, kept.dtype)
        if found < _SMALL and change(kept + kept.square().mean().sqrt() * noise) <= found:
            left_out[name] = "the outputs do not depend on it"
        else:
            changes[name] = found
    return changes, left_out


def _measured(
    snapshot: Snapshot, factors: Sequence[float], num_samples: int
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the changes on a copy of the model, normalised as in training: BatchNorm by the batch, no dropout."""
    twin, _, batches = snapshot.isolated_model()
    twin.eval()
    for module in twin.modules():
        if isinstance(module, _BATCH_STATISTICS):
            module.train()
    inputs = batches[0][0][:num_samples]
    if any(p.dtype in _HALF for p in twin.parameters()):
        twin.float()
        inputs = inputs.float() if inputs.dtype in _HALF else inputs
    weights = {n: p.detach() for n, p in twin.named_parameters() if n in snapshot.parameters and p.ndim > 1}
    if not weights:
        raise Missing("the model has no weight matrix")
    with torch.no_grad():
        return output_changes(lambda: _outputs(twin, inputs), weights, factors, snapshot.generator("scale_invariance"))


def _outputs(model: nn.Module, inputs: Any) -> Tensor:
    try:
        found = model(inputs.clone())
    except Exception as error:
        raise Missing(f"a copy of the model does not run on {len(inputs)} samples: {error}") from error
    if not isinstance(found, Tensor):
        raise Missing(f"the model's outputs are a {type(found).__name__}, not one tensor")
    return found


@dataclass
class ScaleInvariance(Diagnostic):
    """The largest relative change of the outputs when one weight tensor is scaled: 0 is a scale-invariant layer.

    max over c of ‖f(cW) − f(W)‖/‖f(W)‖ on the first samples of the train probe, for each weight of two
    dimensions or more. Value (L,), exact. Found by trying, on a copy of the model: whatever normalises what W
    puts out (BatchNorm, LayerNorm, RMSNorm, weight norm, QK norm) is found, whether or not it follows directly.
    BatchNorm uses the batch's statistics, as in training, and dropout is off, whatever the mode of the probe. A
    normalisation's ε leaves a change above 0 where activations are small, and so does the bias of a linear layer
    that LayerNorm follows. `details["left_out"]` names weights that are zero or that the outputs do not depend on.

    Args:
        factors: the values of c; each costs a forward pass for every weight.
        num_samples: samples in these passes, from the first batch of the probe.

    Raises:
        ValueError: if there is no factor, or `num_samples` is below 1.

    Source: van Laarhoven 2017 (L2 Regularization versus Batch and Weight Normalization).
    """

    name: ClassVar = "scale_invariance"
    title: ClassVar = "Scale invariance per layer"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "How much the outputs change when a weight is halved or doubled: near 0, its length is moot."
    formula: ClassVar = r"\max_c\ \lVert f(cW_l) - f(W_l)\rVert / \lVert f(W_l)\rVert"
    undefined: ClassVar = (
        "The model cannot be copied, is called through forward=, has no weight matrix, or its outputs are zero or not "
        "one tensor."
    )
    source: ClassVar = "van Laarhoven 2017, L2 Regularization versus Batch and Weight Normalization"
    needs: ClassVar = Needs.OUTPUTS | Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    is_slow: ClassVar = True
    interval: ClassVar = 1000
    chart: ClassVar = Chart.HEATMAP
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "parameter"
    references: ClassVar = (ReferenceLine("invariant", 0.0, "by the definition"),)

    factors: Sequence[float] = FACTORS
    num_samples: int = 32

    def __post_init__(self) -> None:
        if not self.factors or self.num_samples < 1:
            raise ValueError(
                f"expected at least one factor and one sample, got factors={self.factors}, "
                f"num_samples={self.num_samples} in options of 'scale_invariance'; leave them out for 0.5, 2 and 32"
            )

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one change per weight tensor."""
        changes, left_out = _measured(snapshot, self.factors, self.num_samples)
        return by_layer(changes, left_out, "the model has no weight matrix")


@dataclass
class EffectiveLearningRate(Diagnostic):
    """η/‖W‖² of each scale-invariant weight under SGD: the learning rate of its direction.

    The gradient of a scale-invariant weight is perpendicular to it and shrinks as 1/‖W‖, so a step turns W by
    (η/‖W‖²) times the gradient at length 1: growing weights slow learning down, weight decay speeds it up.
    Value (L,), exact. Which weights are scale-invariant is found by trying, once, at the first measurement
    (`scale_invariance` tells how). Plain η, as the group has it: heavy-ball momentum β multiplies it by
    1/(1 − β). For Adam and its like the turn goes as η/‖W‖, and `update.angle` shows it.

    Args:
        tolerance: largest relative change of the outputs under halving and doubling of a weight that counts
            as invariant; our choice: the ε of normalisations leaves some change.

    Source: van Laarhoven 2017 (L2 Regularization versus Batch and Weight Normalization).
    """

    name: ClassVar = "effective_lr"
    title: ClassVar = "Effective learning rate of scale-invariant layers"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "The learning rate that counts where a normalisation makes the length of the weights moot."
    formula: ClassVar = r"\eta / \lVert W_l\rVert_F^2"
    unit: ClassVar = "learning rate / weight²"
    undefined: ClassVar = "No optimiser, one that is not SGD, or no weight that is scale-invariant."
    source: ClassVar = "van Laarhoven 2017, L2 Regularization versus Batch and Weight Normalization"
    needs: ClassVar = Needs.OUTPUTS | Needs.PARAMETERS | Needs.OPTIMIZER_STATE
    tier: ClassVar = Tier.FULL
    is_slow: ClassVar = True
    interval: ClassVar = 100
    chart: ClassVar = Chart.HEATMAP
    scale: ClassVar = Scale.LOG
    keys: ClassVar = "parameter"

    tolerance: float = 0.01
    _invariant: frozenset[str] | None = field(default=None, init=False, repr=False)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one rate per scale-invariant weight."""
        optimizer = snapshot.optimizer
        if optimizer.kind != "SGD":
            raise Missing(f"η/‖W‖² is SGD's effective rate; for {optimizer.kind}, update.angle shows the turn itself")
        if self._invariant is None:
            changes, _ = _measured(snapshot, FACTORS, ScaleInvariance.num_samples)
            self._invariant = frozenset(name for name, change in changes.items() if change <= self.tolerance)
        rates = {name: float(group.options["lr"]) for group in optimizer.groups for name in group.names}
        values = {
            name: rates[name] / frobenius(weight) ** 2
            for name, weight in snapshot.parameters.items()
            if name in self._invariant and name in rates
        }
        return by_layer(values, {}, "no weight that the optimiser trains is scale-invariant")
