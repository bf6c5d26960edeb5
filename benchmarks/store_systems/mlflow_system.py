"""MLflow with a SQLite file as its store: `log_metrics` returns when the step is committed."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import mlflow
import numpy as np

from store_systems import NAMES

VERSION = version("mlflow")


class System:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment("benchmark")
        self.run = mlflow.start_run()

    def log(self, step: int, values: list[float]) -> None:
        """Log one step."""
        mlflow.log_metrics(dict(zip(NAMES, values, strict=True)), step=step)

    def flush(self) -> None:
        """All is saved already."""

    def close(self) -> None:
        """End the run."""
        mlflow.end_run()

    def read(self) -> np.ndarray:
        """Return the values of one series."""
        history = mlflow.MlflowClient().get_metric_history(self.run.info.run_id, NAMES[3])
        return np.array([point.value for point in sorted(history, key=lambda point: point.step)])
