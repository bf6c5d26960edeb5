"""The ways people train, by name: `KINDS`. Each file has some of them, as the loops that people write."""

from trainings import averages, compilation, gradients, hooks, models, optimizers, precision, settings
from trainings.base import KINDS, Training

__all__ = ["KINDS", "Training", "averages", "compilation", "gradients", "hooks", "models", "optimizers", "precision",
           "settings"]  # fmt: skip
