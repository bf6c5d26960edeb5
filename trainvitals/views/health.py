"""What the first page says: what the run is doing, what was measured last, and what it cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from trainvitals.schema import Reading, Status
from trainvitals.views.run_view import COST_SCALARS, RunView
from trainvitals.views.words import clean, duration, number, steps, with_error

RATE_POINTS = 20  # the step rate is that of the last so many measured steps


def freshness(status: Status, updated: float | None, now: float) -> str:
    """Return in words what the run is doing, and since when.

    >>> freshness(Status.LIVE, 100.0, 100.4), freshness(Status.STALLED, 100.0, 400.0)
    ('Live: heard from 0.4 s ago', 'Stalled: nothing heard for 5 min')
    """
    age = duration(max(now - updated, 0)) if updated else "an unknown time"
    return {
        Status.LIVE: f"Live: heard from {age} ago",
        Status.STALLED: f"Stalled: nothing heard for {age}",
        Status.CRASHED: f"Crashed: last heard from {age} ago",
        Status.FINISHED: f"Finished {age} ago",
    }[status]


def step_rate(view: RunView) -> float | None:
    """Return steps per second over the last measured steps, or None before there are two."""
    for name in ("probe.seconds", "loss.train", *view.latest):
        points = view.points(name).drop_duplicates("step").tail(RATE_POINTS)
        if len(points) >= 2:
            elapsed = float(points["time"].iloc[-1] - points["time"].iloc[0])
            return float(points["step"].iloc[-1] - points["step"].iloc[0]) / elapsed if elapsed > 0 else None
    return None


def summarised(reading: Reading, keys_word: str = "") -> str:
    """Return a reading as one short text: value ± error, the range of a vector, or `missing`."""
    if reading.missing is not None or reading.value is None:
        return "missing"
    values = np.asarray(reading.value, float)
    flag = " (not converged)" if reading.converged is False else ""
    if values.ndim == 0:
        error = None if reading.error is None else float(reading.error)
        return with_error(float(values), error) + flag
    if "grid" in reading.details:
        return f"density on {values.size:,} points"
    finite = values[np.isfinite(values)]
    if not finite.size:
        return f"no finite value among {values.size}"
    what = f"{values.size} × {keys_word}" if keys_word else f"{values.size} values"
    return f"{number(float(finite.min()))} to {number(float(finite.max()))} ({what})" + flag


def latest_table(view: RunView) -> pd.DataFrame:
    """Return the last value of every metric with its step, and its reason when missing."""
    rows = []
    for name, (step, reading) in view.latest.items():
        description = view.descriptions.get(name)
        if description is None or name in COST_SCALARS:
            continue
        rows.append({
            "Metric": clean(description.title), "Latest": summarised(reading, clean(description.keys, 20)),
            "Step": step, "Missing because": clean(reading.missing or ""), "Name": clean(name),
        })  # fmt: skip
    columns = ["Metric", "Latest", "Step", "Missing because", "Name"]
    return pd.DataFrame(rows, columns=columns)


def cost_table(view: RunView) -> pd.DataFrame:
    """Return what was spent on each diagnostic: measurements, seconds in all, products at the last one."""
    rows = []
    for name, (_, reading) in view.latest.items():
        if name not in view.stored:
            continue
        seconds, num_steps = _spent(view, name)
        rows.append({
            "Metric": clean(view.descriptions[name].title), "Seconds": round(seconds, 4), "Measured": num_steps,
            "Products, last time": int(reading.hvps), "Needs": clean(view.descriptions[name].cost),
            "Schedule": clean(_schedule(view.run.meta, name)), "Name": clean(name),
        })  # fmt: skip
    columns = ["Metric", "Seconds", "Measured", "Products, last time", "Needs", "Schedule", "Name"]
    return pd.DataFrame(rows, columns=columns).sort_values("Seconds", ascending=False, ignore_index=True)


def _spent(view: RunView, name: str) -> tuple[float, int]:
    def add() -> tuple[float, int]:
        per_step = view.points(name).drop_duplicates("step")  # the rows of a vector share one measurement
        return float(np.nansum(per_step["seconds"].to_numpy(float))), len(per_step)

    return view.once(f"spent {name}", view.token(name), add)


def _schedule(meta: dict[str, Any], name: str) -> str:
    """Return the schedule of a metric in words: its own, or that of the group it is a part of."""
    probes = meta.get("probes") or {}
    while name:
        if name in probes:
            return str(probes[name])
        name = name.rpartition(".")[0]
    return ""


def missing_table(view: RunView) -> pd.DataFrame:
    """Return the metrics whose last point is missing, with the reason in words."""
    table = latest_table(view)
    return table.loc[table["Latest"] == "missing", ["Metric", "Step", "Missing because", "Name"]]


def one_line(view: RunView) -> str:
    """Return the first page's summary: how much was recorded, what is undefined, what was warned of."""
    num_metrics = sum(name not in COST_SCALARS for name in view.latest)
    undefined = list(missing_table(view)["Metric"])
    warnings = sum(kind == "warning" for kind in view.events["kind"])
    parts = [f"{num_metrics} metrics recorded"]
    parts.append(f"undefined now: {', '.join(undefined[:3])}{', …' if len(undefined) > 3 else ''}" if undefined
                 else "none of them undefined now")  # fmt: skip
    parts.append(f"{warnings} warning{'s' * (warnings != 1)}" if warnings else "no warnings")
    if view.run.num_dropped:
        parts.append(f"{steps(view.run.num_dropped)} points could not be saved")
    return "; ".join(parts) + "."
