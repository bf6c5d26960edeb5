"""TensorBoard: ten `add_scalar` calls a step; saved means handed to the operating system, which is all it offers."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from store_systems import NAMES

VERSION = version("tensorboard")


class System:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = SummaryWriter(str(folder))

    def log(self, step: int, values: list[float]) -> None:
        """Log one step."""
        for name, value in zip(NAMES, values, strict=True):
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Wait until all is saved."""
        self.writer.flush()

    def close(self) -> None:
        """End the run."""
        self.writer.close()

    def read(self) -> np.ndarray:
        """Return the values of one series; its reader loads all ten."""
        events = EventAccumulator(str(self.folder), size_guidance={"scalars": 0})
        events.Reload()
        return np.array([event.value for event in events.Scalars(NAMES[3])])
