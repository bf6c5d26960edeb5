"""MLflow's SQLite tracking store, read as the database that it is; MLflow need not be installed.

The tables `experiments`, `runs`, `metrics`, `params` and `tags` have kept these columns from MLflow 1.x
to 3.x (checked: 3.17.2).
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from trainvitals.exchange.recording import FoundRun
from trainvitals.schema import Record, Status
from trainvitals.store.errors import StoreError

STATUSES = {"FAILED": Status.CRASHED, "KILLED": Status.CRASHED}
OWN_TAGS = "mlflow."  # keys that MLflow gives itself


def find_mlflow(path: str | os.PathLike[str]) -> list[FoundRun]:
    """Return the runs of a tracking database, those that were deleted there left out.

    Raises:
        StoreError: if the file is no database of MLflow.
    """
    file = Path(path)
    try:
        with _opened(file) as database:
            rows = database.execute(
                "SELECT run_uuid, runs.name, experiments.name, status, start_time FROM runs "
                "LEFT JOIN experiments ON experiments.experiment_id = runs.experiment_id "
                "WHERE runs.lifecycle_stage IS NULL OR runs.lifecycle_stage != 'deleted' ORDER BY start_time"
            ).fetchall()
            return [_found(file, database, row) for row in rows]
    except sqlite3.Error as error:
        raise StoreError(
            f"expected MLflow's SQLite database, got {str(path)!r} that is none ({error}) in import mlflow; "
            "give the file of sqlite:///FILE, often mlflow.db"
        ) from error


def _found(file: Path, database: sqlite3.Connection, row: tuple[Any, ...]) -> FoundRun:
    uuid, name, experiment, status, start = row
    params = dict(database.execute("SELECT key, value FROM params WHERE run_uuid = ?", (uuid,)))
    tags = dict(database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (uuid,)))
    name = name or tags.get("mlflow.runName") or uuid
    return FoundRun(
        name=f"{experiment}/{name}" if experiment else name,
        program="MLflow",
        records=_records(file, uuid),
        started=start / 1000 if start else None,
        config={**params, "mlflow.run": uuid},
        tags=tuple(f"{key}={value}"[:128] for key, value in tags.items() if not key.startswith(OWN_TAGS)),
        note=tags.get("mlflow.note.content") or "",
        status=STATUSES.get(status, Status.FINISHED),
    )


def _records(file: Path, uuid: str) -> Iterator[Record]:
    """Yield the metrics of one run: those logged in the same millisecond at the same step are one record."""
    with _opened(file) as database:
        rows = database.execute(
            "SELECT timestamp, step, key, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step, key",
            (uuid,),
        )
        for (milliseconds, step), members in groupby(rows, lambda row: row[:2]):
            scalars: dict[str, float] = {}
            for _, _, key, value, is_nan in members:
                if key in scalars:  # twice in one millisecond
                    yield Record(step, milliseconds / 1000, scalars=scalars)
                    scalars = {}
                scalars[key] = _number(value, is_nan)
            yield Record(step, milliseconds / 1000, scalars=scalars)


def _number(value: float, is_nan: int) -> float:
    """Return the number that was logged: MLflow stores infinities as the largest float."""
    if is_nan:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else float(value)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.is_file():
        raise StoreError(f"expected a file, got {str(file)!r} in import mlflow; give the file of sqlite:///FILE")
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        yield database
