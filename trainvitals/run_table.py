"""All runs of a store as one table: settings, tags and last values side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from trainvitals.run import Run, list_runs, open_run
from trainvitals.schema import RunSummary
from trainvitals.store.errors import StoreError

FACTS = ["id", "name", "status", "started", "updated", "last_step", "num_points", "tags", "note", "path", "problem"]


def runs(store: str | os.PathLike[str] = "runs/", *, values: bool = True) -> pd.DataFrame:
    """Return a table of the runs of a folder or a database, newest first, a row a run.

    Args:
        store: a folder or a postgresql:// address.
        values: whether to read the last values, which opens every run.

    Returns:
        Columns `id`, `name`, `status`, `started` and `updated` (seconds since the epoch), `last_step`,
        `num_points`, `tags` (tuples), `note`, `path`, `problem` (why it cannot be read, or None); then the settings
        as `config.NAME`, nested ones as `config.OUTER.INNER`; then the last number of every metric of one number under
        its own name, NaN where a run has none or it was undefined.

    Raises:
        StoreError: if a database does not answer or refuses.

    Example:
        >>> runs("a-folder-that-does-not-exist").columns[:3].tolist()
        ['id', 'name', 'status']
    """
    rows = [_row(summary, store, values) for summary in list_runs(store)]
    settings = dict.fromkeys(name for _, config, _ in rows for name in config)
    metrics = sorted({name for _, _, last in rows for name in last})
    table = pd.DataFrame([facts for facts, _, _ in rows], columns=FACTS)
    parts = {name: pd.Series([config.get(name) for _, config, _ in rows], dtype=object) for name in settings}
    parts |= {name: pd.Series([last.get(name, float("nan")) for _, _, last in rows], dtype=float) for name in metrics}
    return pd.concat([table, pd.DataFrame(parts).infer_objects()], axis=1) if parts else table


def _row(summary: RunSummary, store: Any, values: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    facts = {name: getattr(summary, name, None) for name in FACTS}
    facts |= {"status": None if summary.status is None else str(summary.status), "note": ""}
    if summary.problem is not None:
        return facts, {}, {}
    try:
        with open_run(summary.id, store) as run:
            facts |= {"tags": run.tags, "note": run.note}
            return facts, dict(_flat("config", run.meta.get("config", {}))), _last(run) if values else {}
    except StoreError as error:  # it went away, or was damaged, since it was listed
        return {**facts, "problem": str(error)}, {}, {}


def _flat(name: str, config: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping) and (config or name == "config"):
        for key, value in config.items():
            yield from _flat(f"{name}.{key}", value)
    else:
        yield name, config


def _last(run: Run) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, (_, reading) in run.latest().items():
        if isinstance(reading.value, (int, float)) and not isinstance(reading.value, bool):
            found[name] = float(reading.value)
        elif reading.missing is not None:
            found[name] = float("nan")
    return found
