"""TrainVitals: one record a step; saved means committed and synchronised with the disk."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import trainvitals
from store_systems import NAMES
from trainvitals.schema import Record
from trainvitals.store.reader import RunReader
from trainvitals.store.writer import RunWriter

VERSION = trainvitals.__version__


class System:
    def __init__(self, folder: Path) -> None:
        self.writer = RunWriter.create(folder, "benchmark", {}, {})

    def log(self, step: int, values: list[float]) -> None:
        """Log one step."""
        self.writer.append(Record(step, time.time(), {}, dict(zip(NAMES, values, strict=True))))

    def flush(self) -> None:
        """Wait until all is saved."""
        if not self.writer.flush(120):
            raise RuntimeError("expected the flush to be done in 120 s")

    def close(self) -> None:
        """End the run."""
        self.writer.close()
        if self.writer.num_dropped:
            raise RuntimeError(f"expected no drops, got {self.writer.num_dropped}")

    def read(self) -> np.ndarray:
        """Return the values of one series."""
        return RunReader(self.writer.path).series(NAMES[3]).points.value
