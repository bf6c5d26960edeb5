"""Runs as a table to pick from, and where their settings differ.

Nothing of a run is opened for the list: 2,000 runs are a table at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from trainvitals.run import Run
from trainvitals.schema import RunSummary
from trainvitals.views.words import clean, clock, number

MISSING = "–"


def flat(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a nested mapping by dotted names.

    >>> dict(flat({"lr": 0.1, "model": {"width": 64}}))
    {'lr': 0.1, 'model.width': 64}
    """
    if isinstance(config, Mapping) and (config or not name):
        for key, value in config.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, config


def settings(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells one run from another: its settings, seed, model, optimiser and probe batches."""
    found = dict(flat(meta.get("config") or {}))
    if meta.get("seed") is not None:
        found.setdefault("seed", meta["seed"])
    for part in ("train_probe", "heldout_probe"):
        if isinstance(meta.get(part), Mapping) and "hash" in meta[part]:
            found[f"{part} (hash of its content)"] = meta[part]["hash"]
    for part in ("model", "optimizer"):
        for name, value in flat(meta.get(part) or {}, part):
            if name.count(".") == 1 and isinstance(value, str | int | float):
                found.setdefault(name, value)
    groups = (meta.get("optimizer") or {}).get("groups")
    if isinstance(groups, Sequence) and len(groups) and isinstance(groups[0], Mapping):
        found |= {f"optimizer.{key}": value for key, value in groups[0].items() if isinstance(value, int | float)}
    return found


def differences(runs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the settings in which runs differ: a row a setting, a column a run; empty where all agree.

    >>> differences({"a": {"lr": 0.1, "seed": 0}, "b": {"lr": 0.2, "seed": 0}}).to_dict("list")
    {'Setting': ['lr'], 'a': ['0.1'], 'b': ['0.2']}
    """
    names = dict.fromkeys(name for config in runs.values() for name in config)
    rows = []
    for name in names:
        shown = [_shown(config[name]) if name in config else MISSING for config in runs.values()]
        if len(set(shown)) > 1:
            rows.append([clean(name, 80), *shown])
    return pd.DataFrame(rows, columns=["Setting", *runs])


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None or not isinstance(value, int | float):
        return clean(value, 120)
    return number(value, 6)


def last_values(run: Run, names: Sequence[str]) -> dict[str, float]:
    """Return the last value of each metric of one number, NaN where it is missing."""
    latest, found = run.latest(), {}
    for name in names:
        value = latest[name][1].value if name in latest else None
        found[name] = float(value) if value is not None and np.ndim(value) == 0 else float("nan")
    return found


def matching(runs: Sequence[RunSummary], words: str, tags: Sequence[str], statuses: Sequence[str]) -> list[RunSummary]:
    """Return the readable runs whose name or id holds every word, that have every tag and one of the statuses."""
    wanted = words.lower().split()
    return [
        run for run in runs
        if run.problem is None
        and all(word in f"{run.name} {run.id}".lower() for word in wanted)
        and set(tags) <= set(run.tags)
        and (not statuses or str(run.status) in statuses)
    ]  # fmt: skip


def table(runs: Sequence[RunSummary]) -> pd.DataFrame:
    """Return a row a run, of what is known without opening it."""
    return pd.DataFrame({
        "Run": [clean(run.name, 60) for run in runs],
        "Status": [str(run.status) for run in runs],
        "Started": [clock(run.started) if run.started else MISSING for run in runs],
        "Last step": [run.last_step for run in runs],
        "Points": [run.num_points for run in runs],
        "Tags": [[clean(tag, 40) for tag in run.tags] for run in runs],
        "Id": [clean(run.id, 80) for run in runs],
    })  # fmt: skip
