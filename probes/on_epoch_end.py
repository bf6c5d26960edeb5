"""Measure at the ends of epochs: counted from a loader's length, or told by `run.epoch_end()`."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from trainvitals.probes.schedule import NEVER, Combinable, Every, whole


class OnEpochEnd(Combinable):
    """Due where `run.epoch_end()` says that an epoch has ended. Made by `on_epoch_end()`."""

    def __init__(self) -> None:
        self._due_at = -1

    def fresh(self) -> OnEpochEnd:
        """Return the same schedule for another run."""
        return OnEpochEnd()

    def due(self, step: int) -> bool:
        """Tell whether an epoch has ended at this step."""
        return step == self._due_at

    def after(self, step: int) -> int:
        """Return the next step that is known to be due."""
        return self._due_at if self._due_at > step else NEVER

    def end(self, step: int) -> None:
        """Note that an epoch has ended at this step."""
        self._due_at = step

    def __str__(self) -> str:
        return "at the end of every epoch"


def on_epoch_end(steps: Any = None) -> OnEpochEnd | Every:
    """Measure at the end of every epoch.

    A plain loop does not say where its epochs end. Give the loader, or the number of optimiser steps of an epoch;
    or leave it out and call `run.epoch_end()` where one ends (the Lightning and Hugging Face callbacks do). What reads
    the training step itself, as `update.ratio`, cannot be measured after the fact: it is left out there.

    Args:
        steps: optimiser steps of an epoch, or a loader with a length, if every batch of it is one step. None: told.

    Raises:
        ValueError: if it is neither.

    >>> [step for step in range(9) if on_epoch_end([("x", "y")] * 4).due(step)]
    [0, 4, 8]
    """
    if steps is None:
        return OnEpochEnd()
    hint = "give the loader, or the number of optimiser steps, or nothing and call run.epoch_end()"
    return Every(whole(len(steps) if isinstance(steps, Sized) else steps, 1, "on_epoch_end", hint))
