"""MLflow: metrics of a run, through its client (needs the package `mlflow` or `mlflow-skinny`)."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# It is optional, and not among what is checked with.

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from trainvitals.integrations.sink import Sink

MOST_AT_ONCE = 1000  # metrics of one request
_UNWANTED = re.compile(r"[^\w\-. /:]")  # in names, as MLflow checks them


class MlflowSink(Sink):
    """Log scalars to an MLflow run by its id; the run is ended by whoever began it.

    Args:
        run_id: of a run that `mlflow.start_run` or a client began.
        tracking_uri: of the server or the database; MLflow's own setting unless told.
    """

    def __init__(self, run_id: str, tracking_uri: str | None = None) -> None:
        self._client, self._run_id = MlflowClient(tracking_uri), run_id

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the scalars."""
        now = int(1000 * time.time())
        metrics = [Metric(_UNWANTED.sub("_", name), value, now, step) for name, value in numbers.items()]
        for first in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(self._run_id, metrics=metrics[first : first + MOST_AT_ONCE])

    def close(self) -> None:
        """Do nothing: every write is saved."""
