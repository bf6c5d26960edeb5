"""Whether the gradient only asks for longer weights.

Legend: L parameter tensors, θ_l one of them, g_l its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.diagnostics.gradient_alignment import cosine_of
from trainvitals.schema import Chart, Question, Reading, ReferenceLine


@dataclass
class NaiveLossMinimization(Diagnostic):
    """cos(−g_l, θ_l) of each parameter tensor, g the gradient of the mean loss of the train probe.

    Value (L,) in [−1, 1], in the order of the parameters, exact. Near 1 the loss falls by scaling the tensor up:
    the outputs grow and the predictions stay ("naive loss minimisation"), which under cross-entropy ends in
    exact zeros of the loss. 0 before a normalisation, where scaling does nothing; below 0 the loss asks for
    shorter weights. A tensor that is zero, or has a gradient of zero, NaN or Inf, is left out
    (`details["left_out"]`). No options.

    Source: Prieto et al. 2025 (Grokking at the Edge of Numerical Stability).
    """

    name: ClassVar = "grad.nlm"
    title: ClassVar = "Naive loss minimisation per layer"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "Whether the gradient only asks to scale the weights up (1) or to change them otherwise (0)."
    formula: ClassVar = r"\cos(-g_l, \theta_l)"
    undefined: ClassVar = "Every tensor is zero, or has a gradient of zero, NaN or Inf."
    source: ClassVar = "Prieto, Barsbey, Mediano, Birdal 2025, Grokking at the Edge of Numerical Stability"
    needs: ClassVar = Needs.GRADIENT | Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 100
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "parameter"
    references: ClassVar = (ReferenceLine("no change of scale", 0.0, "by the definition"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return one cosine per parameter tensor."""
        gradient, parameters = snapshot.gradient, snapshot.parameters
        values: dict[str, float] = {}
        left_out: dict[str, str] = {}
        for name, g in gradient.items():
            if not (g.isfinite().all() and parameters[name].isfinite().all()):
                left_out[name] = "it or its gradient holds NaN or Inf"
                continue
            try:
                values[name] = -cosine_of({name: g}, {name: parameters[name]})
            except Missing:
                left_out[name] = "it is zero" if not parameters[name].any() else "its gradient is zero"
        return by_layer(values, left_out, "there is no gradient")
