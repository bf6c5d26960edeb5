"""Weights & Biases: a run of its library, online or offline as that library is set up (needs the package `wandb`)."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# It is optional, and not among what is checked with.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import wandb

from trainvitals.integrations.sink import Sink

STEP = "trainvitals/step"  # an axis of our own: W&B drops what comes for an earlier step than its last


class WandbSink(Sink):
    """Log scalars to a W&B run, on an axis of their own, so that your own `wandb.log` is not disturbed.

    Args:
        run: that `wandb.init` returned; unless given one is begun with `options`, and finished at the end.
        options: of `wandb.init`, as project="digits", mode="offline".
    """

    def __init__(self, run: Any = None, **options: Any) -> None:
        self._is_ours = run is None
        self._run = wandb.init(**options) if run is None else run
        self._run.define_metric(STEP)
        self._defined: set[str] = set()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scalars."""
        named = {f"trainvitals/{name}": value for name, value in numbers.items()}
        for name in named.keys() - self._defined:
            self._run.define_metric(name, step_metric=STEP)
            self._defined.add(name)
        self._run.log({**named, STEP: step})

    def close(self) -> None:
        """Finish the run if it was begun here."""
        if self._is_ours:
            self._run.finish()
