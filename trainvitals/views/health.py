"""What the first page says: what the run is doing, what was measured last, and what it cost."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import tzinfo
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from trainvitals.schema import Description, Question, Reading, ReferenceLine, Status
from trainvitals.views.run_view import COST_SCALARS, RunView
from trainvitals.views.words import clean, clock, duration, number, share, steps, with_error

SAME_DAY_SECONDS = 12 * 3600  # older times are shown with their date
RATE_POINTS = 20  # the step rate is that of the last so many measured steps


def freshness(status: Status, updated: float | None, now: float, zone: tzinfo | None = None) -> str:
    """Return in words what the run is doing, since when, and when that was.

    >>> freshness(Status.LIVE, 100.0, 100.4)
    'Live: heard from 0.4 s ago'
    >>> from datetime import UTC
    >>> freshness(Status.CRASHED, 100.0, 400.0, UTC)
    'Crashed at 00:01, 5 min ago'
    """
    if not updated:
        return f"{str(status).capitalize()}, at an unknown time"
    age = duration(max(now - updated, 0))
    at = clock(updated, zone)[11:16] if now - updated < SAME_DAY_SECONDS else clock(updated, zone)[:16]
    return {
        Status.LIVE: f"Live: heard from {age} ago",
        Status.STALLED: f"Stalled since {at}: nothing heard for {age}",
        Status.CRASHED: f"Crashed at {at}, {age} ago",
        Status.FINISHED: f"Finished at {at}, {age} ago",
    }[status]


def step_rate(view: RunView) -> float | None:
    """Return steps per second over the last measured steps, or None before there are two."""
    for name in ("probe.seconds", "loss.train", *view.latest):
        points = view.points(name).drop_duplicates("step").tail(RATE_POINTS)
        if len(points) >= 2:
            elapsed = float(points["time"].iloc[-1] - points["time"].iloc[0])
            return float(points["step"].iloc[-1] - points["step"].iloc[0]) / elapsed if elapsed > 0 else None
    return None


def summarised(reading: Reading) -> str:
    """Return a reading as one short text: value ± error, the range of a vector and its length, or why it is missing.

    >>> summarised(Reading(value=1.25, error=0.5)), summarised(Reading(value=np.array([0.5, 3.0, 2.0])))
    ('1.25 ± 0.5', '0.5 to 3 (3)')
    """
    if _is_missing(reading):
        return f"missing: {clean(reading.missing)}" if reading.missing else "missing"
    values = np.asarray(reading.value, float)
    flag = " (not converged)" if reading.converged is False else ""
    if values.size == 1:
        error = None if reading.error is None else float(np.asarray(reading.error, float).reshape(-1)[0])
        return with_error(float(values.reshape(-1)[0]), error) + flag
    if "grid" in reading.details:
        return f"density on {values.size:,} points"
    finite = values[np.isfinite(values)]
    if not finite.size:
        return f"no finite value among {values.size}"
    return f"{number(float(finite.min()), 3)} to {number(float(finite.max()), 3)} ({values.size})" + flag


def _is_missing(reading: Reading) -> bool:
    return reading.missing is not None or reading.value is None


def latest_table(view: RunView) -> pd.DataFrame:
    """Return the last value of every metric with its step, or why it is missing, in the order of the pages.

    On a page, numbers come before vectors and what the script logged comes last.
    """
    order = [str(question) for question in Question]
    rows = []
    for name, (step, reading) in view.latest.items():
        if name in COST_SCALARS:
            continue
        question = view.descriptions[name].question
        rank = order.index(question) if question in order else len(order)
        place = (rank, question, name not in view.stored, np.ndim(reading.value) > 0, name)
        shown = _no_value(view, name) if _is_missing(reading) else summarised(reading)
        rows.append((place, question, view.descriptions[name].title, shown, step, _is_missing(reading)))
    columns = ["Question", "Metric", "Latest", "Step", "Missing"]
    ordered = [(clean(question), clean(title), *rest) for _, question, title, *rest in sorted(rows, key=itemgetter(0))]
    return pd.DataFrame(ordered, columns=columns)


def cost_table(view: RunView) -> pd.DataFrame:
    """Return what each diagnostic costs: how many steps apart it is measured now, seconds a time, share, products."""
    rows = []
    wall = max((view.updated or 0.0) - (view.run.started or 0.0), 0.0)
    intervals = _intervals(view)
    for name, (_, reading) in view.latest.items():
        if name not in view.stored or name in COST_SCALARS:
            continue
        seconds, num_steps = _spent(view, name)
        rows.append({
            "Metric": clean(view.descriptions[name].title), "Steps apart, now": _of(intervals, name),
            "Seconds each": float(f"{seconds / max(num_steps, 1):.3g}"), "Seconds": round(seconds, 4),
            "Share of time": share(seconds / wall) if wall else "", "Measured": num_steps,
            "Products, last time": int(reading.hvps), "Needs": clean(view.descriptions[name].cost),
            "Schedule": clean(_schedule(view.run.meta, name)), "Name": clean(name),
        })  # fmt: skip
    columns = ["Metric", "Steps apart, now", "Seconds each", "Seconds", "Share of time", "Measured",
               "Products, last time", "Needs", "Schedule", "Name"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns).sort_values("Seconds", ascending=False, ignore_index=True)
    return table.astype({"Steps apart, now": "Int64"})


def _intervals(view: RunView) -> dict[str, int]:
    """Return the steps between measurements as the schedule has them, or as the budget has chosen them since."""
    found = {}
    for name, schedule in (view.run.meta.get("probes") or {}).items():
        if match := re.fullmatch(r"every (?:(\d+) steps|step)", str(schedule)):
            found[str(name)] = int(match[1] or 1)
    if "probe.interval" in view.latest:
        chosen = view.latest["probe.interval"][1]
        steps_apart = np.ravel(np.asarray(chosen.value, float))
        found |= {key: int(number) for key, number in zip(chosen.keys, steps_apart, strict=False)}
    return found


def _of(numbers: dict[str, int], name: str) -> int | None:
    """Return the number of a metric, or of the group that it is a part of."""
    while name:
        if name in numbers:
            return numbers[name]
        name = name.rpartition(".")[0]
    return None


def cost_descriptions(view: RunView) -> list[Description]:
    """Return what there is to draw of the cost, shares of time with the budget as a line."""
    budget = view.run.meta.get("budget")
    found = [COST_SCALARS[name] for name in COST_SCALARS if name in view.latest]
    if not isinstance(budget, (int, float)) or isinstance(budget, bool):
        return found
    line = ReferenceLine("budget", float(budget), "budget= of trainvitals.watch")
    return [replace(d, references=(line,)) if d.name.startswith("probe.share") else d for d in found]


def _spent(view: RunView, name: str) -> tuple[float, int]:
    return view.once(f"spent {name}", view.token(name), lambda: view.run.spent(name))


def _schedule(meta: dict[str, Any], name: str) -> str:
    """Return the schedule of a metric in words: its own, or that of the group it is a part of."""
    probes = meta.get("probes") or {}
    while name:
        if name in probes:
            return str(probes[name])
        name = name.rpartition(".")[0]
    return ""


def why_no_value(view: RunView, name: str) -> str:
    """Return why a metric has no value now, and whether it ever had one in this run."""
    reason = clean(view.latest[name][1].missing or "no reason was recorded")
    return f"{_no_value(view, name)}: {reason}"


def _no_value(view: RunView, name: str) -> str:
    """Return in a few words, for a narrow cell, that a metric has no value; why stands in a table of its own."""
    return "does not apply" if view.points(name).empty else "no value now"


def without_value(view: RunView) -> pd.DataFrame:
    """Return the metrics that have no value now, each with why."""
    rows = [(clean(view.descriptions[name].title), why_no_value(view, name))
            for name, (_, reading) in view.latest.items() if _is_missing(reading)]  # fmt: skip
    return pd.DataFrame(rows, columns=["Metric", "Why it has no value"])


def missing_now(view: RunView) -> list[str]:
    """Return the titles of the metrics whose last point is missing."""
    table = latest_table(view)
    return list(table.loc[table["Missing"].astype(bool), "Metric"])


def one_line(view: RunView) -> str:
    """Return the first page's summary: how much was recorded, and what was warned of."""
    num_metrics = sum(name not in COST_SCALARS for name in view.latest)
    warnings = sum(kind == "warning" for kind in view.events["kind"])
    parts = [f"{num_metrics} metrics recorded"]
    parts.append(f"{warnings} warning{'s' * (warnings != 1)}" if warnings else "no warnings")
    if view.run.num_dropped:
        parts.append(f"{steps(view.run.num_dropped)} points could not be saved")
    return "; ".join(parts) + "."
