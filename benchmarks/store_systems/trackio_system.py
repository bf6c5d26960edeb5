"""trackio without a server: `log` puts a step in a queue; `finish` is the one call that waits for its database."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import numpy as np

from store_systems import NAMES

VERSION = version("trackio")


class System:
    def __init__(self, folder: Path) -> None:
        os.environ["TRACKIO_DIR"] = str(folder)
        import trackio  # reads the variable when it is imported

        self.trackio = trackio
        trackio.init(project="benchmark", name="run", embed=False)

    def log(self, step: int, values: list[float]) -> None:
        """Log one step."""
        self.trackio.log(dict(zip(NAMES, values, strict=True)), step=step)

    def flush(self) -> None:
        """Wait until all is saved; trackio ends the run to do so."""
        self.trackio.finish()

    def close(self) -> None:
        """The run has ended in `flush`."""

    def read(self) -> np.ndarray:
        """Return the values of one series; its reader decodes all ten."""
        from trackio.sqlite_storage import SQLiteStorage

        return np.array([line[NAMES[3]] for line in SQLiteStorage.get_logs("benchmark", "run")])
