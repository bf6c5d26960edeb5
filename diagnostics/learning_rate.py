"""The learning rate of each parameter group as it stands: what a scheduler made of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.schema import Chart, Question, Reading, Scale


@dataclass
class LearningRate(Diagnostic):
    """Learning rate of each parameter group, as the optimiser will use it at the next step.

    Value (G,), exact, with the numbers of the groups as keys. A group whose rate is no number is left out. No options.
    """

    name = "learning_rate"
    title = "Learning rate"
    question = Question.STABILITY
    summary = "The step size of each parameter group, as a schedule has set it."
    formula = r"\eta_t"
    unit = "learning rate"
    undefined = "No optimiser was given, or none of its groups has a learning rate."
    source = "torch.optim.Optimizer.param_groups"
    needs = Needs.OPTIMIZER_STATE
    tier = Tier.LIGHT
    interval = 10
    chart = Chart.LINES
    scale = Scale.LINEAR  # schedules end at zero
    keys = "group"

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the rates."""
        rates: dict[str, float] = {}
        for i, group in enumerate(snapshot.optimizer.groups):
            rate = group.options.get("lr")
            if isinstance(rate, (int, float)) or (isinstance(rate, torch.Tensor) and rate.numel() == 1):
                rates[str(i)] = float(rate)
        if not rates:
            raise Missing("no parameter group has a learning rate")
        return Reading(value=torch.tensor(list(rates.values()), dtype=torch.float64), keys=tuple(rates))
