"""W&B offline: `log` hands a step to its service, which writes a log for a later upload; `finish` waits for it."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true")
import wandb

from store_systems import NAMES

VERSION = version("wandb")


class System:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.run = wandb.init(project="benchmark", dir=str(folder))

    def log(self, step: int, values: list[float]) -> None:
        """Log one step."""
        self.run.log(dict(zip(NAMES, values, strict=True)), step=step)

    def flush(self) -> None:
        """Wait until all is saved; W&B ends the run to do so."""
        self.run.finish()

    def close(self) -> None:
        """The run has ended in `flush`."""

    def read(self) -> None:
        """An offline run is read by nothing but the upload."""
