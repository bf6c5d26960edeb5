"""Where NaN and Inf begin: which weights, layers and gradients hold them, and which first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Question, Reading, ReferenceLine


def with_nonfinite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or Inf, in their order.

    >>> with_nonfinite({"a": torch.ones(2), "b": torch.tensor([1.0, torch.inf])})
    ['b']
    """
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


@dataclass
class FirstBad(Diagnostic):
    """How many weights, layers and gradients hold NaN or Inf, each counted by tensor; 0 is as it should be.

    Value (K,) with keys among `weights` (trainable parameters), `layers` (outputs of linear layers and convolutions on
    the train probe), `activations` (after non-linearities) and `gradients` (of the train-probe loss). What this model
    does not have is left out. Details: `first_weights`, `first_layers`, … the first name of each in the order of the
    parameters or of the forward pass, and `step`, the first measured step at which anything was bad. Weights first
    means that a step went wrong; layers without weights, that the pass overflowed. No options.
    """

    _step: int | None = field(default=None, init=False, repr=False)

    name = "first_bad"
    title = "Tensors with NaN or Inf"
    question = Question.STABILITY
    summary = "How many weights, layer outputs and gradients are no numbers any more, and which was first."
    formula = r"\#\{l : \text{an entry of } \theta_l,\ h_l \text{ or } \nabla_{\theta_l} L \text{ is NaN or Inf}\}"
    unit = "tensors"
    undefined = "Never: trainable weights are always there."
    source = "IEEE 754-2019, section 6 (infinities and NaN)"
    needs = Needs.PARAMETERS | Needs.ACTIVATIONS | Needs.GRADIENT
    tier = Tier.FULL
    interval = 50
    keys = "kind"
    references = (ReferenceLine("all are numbers", 0.0, "by the definition"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return how many tensors of each kind are bad."""
        kinds: dict[str, Callable[[], Mapping[str, Tensor]]] = {
            "weights": lambda: snapshot.parameters,
            "layers": lambda: snapshot.layer_outputs,
            "activations": lambda: snapshot.activations,
            "gradients": lambda: snapshot.gradient,
        }
        bad: dict[str, list[str]] = {}
        left_out: dict[str, str] = {}
        for kind, tensors in kinds.items():
            try:
                found = tensors()
                if not found:
                    raise Missing("none was seen in the forward pass")
                bad[kind] = with_nonfinite(found)
            except Missing as reason:
                left_out[kind] = str(reason)
        if any(bad.values()) and self._step is None:
            self._step = snapshot.step
        details: dict[str, object] = {f"first_{kind}": names[0] for kind, names in bad.items() if names}
        if self._step is not None:
            details["step"] = self._step
        if left_out:
            details["left_out"] = left_out
        counts = torch.tensor([len(names) for names in bad.values()], dtype=torch.float64)
        return Reading(value=counts, keys=tuple(bad), details=details)
