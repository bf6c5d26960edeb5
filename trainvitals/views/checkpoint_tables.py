"""Checkpoints as tables: what there is, what was left out, and two of them side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from trainvitals.views.run_view import RunView
from trainvitals.views.words import clean

# Columns of the table, where the run has them: one number a checkpoint, in this order.
COLUMNS = (
    "loss.train", "loss.heldout", "accuracy.heldout", "gap.loss", "stability.ratio", "hessian.top", "grad.norm",
    "path.distance.initial", "path.distance.previous", "path.barrier.height", "path.soup.gain",
)  # fmt: skip
MATRICES = ("path.distance.between", "path.angle.between", "path.cka.between")
HIDDEN_METRICS = ("probe.seconds", "probe.share")


def checkpoints_of(view: RunView) -> Mapping[str, Any]:
    """Return what the run says of its checkpoints; empty for a run that was watched live."""
    found = view.run.meta.get("checkpoints")
    return found if isinstance(found, dict) else {}


def steps_of(view: RunView) -> list[int]:
    """Return the steps at which anything was measured, in order."""
    names = [name for name in COLUMNS if name in view.latest] or list(view.latest)[:8]
    found = {int(step) for name in names for step in view.points(name)["step"]}
    return sorted(found)


def left_out(view: RunView) -> pd.DataFrame:
    """Return the checkpoints that could not be used: `step`, `message`."""
    events = view.events
    return events.loc[events["kind"] == "checkpoint", ["step", "message"]].reset_index(drop=True)


def table(view: RunView) -> pd.DataFrame:
    """Return one row a checkpoint: its step, its name, and the numbers that the run has of it."""
    labels = checkpoints_of(view).get("labels", {})
    rows = pd.DataFrame({"step": steps_of(view)})
    if labels:
        rows["checkpoint"] = [clean(labels.get(str(step), "")) for step in rows["step"]]
    for name in COLUMNS:
        if name in view.latest:
            values = firsts(view, name)
            rows[view.descriptions[name].title] = [values.get(step, math.nan) for step in rows["step"]]
    return rows


def firsts(view: RunView, name: str) -> dict[int, float]:
    """Return a metric by step: the number, or the first of several (the largest eigenvalue)."""
    points = view.points(name).drop_duplicates("step")
    return {int(step): float(value) for step, value in zip(points["step"], points["value"], strict=True)}


def compared(view: RunView, a: int, b: int) -> pd.DataFrame:
    """Return every plain number that was measured at both steps, and how it changed."""
    rows = []
    for name in view.latest:
        points = view.points(name)
        if name in HIDDEN_METRICS or points.empty or points["key"].iloc[-1]:
            continue
        values = firsts(view, name)
        if a in values and b in values:
            words = view.descriptions[name]
            rows.append((clean(words.title), values[a], values[b], values[b] - values[a], _unit(words.unit)))
    return pd.DataFrame(rows, columns=["Metric", f"step {a:,}", f"step {b:,}", "Change", "Unit"])


def matrix(view: RunView, name: str) -> tuple[list[int], np.ndarray] | None:
    """Return the steps and the numbers (M, M) of a metric of pairs, or None where there is none."""
    if name not in view.latest:
        return None
    reading = view.latest[name][1]
    value = None if reading.value is None else np.asarray(reading.value, float)
    if value is None or value.ndim != 2 or len(reading.keys) != len(value) or not all(map(_is_step, reading.keys)):
        return None
    return [int(key) for key in reading.keys], value


def of_pair(view: RunView, name: str, a: int, b: int) -> float | None:
    """Return the number of a pair of steps, or None where it was not compared."""
    found = matrix(view, name)
    if found is None or a not in found[0] or b not in found[0]:
        return None
    value = float(found[1][found[0].index(a), found[0].index(b)])
    return value if math.isfinite(value) else None


def _is_step(key: str) -> bool:
    return key.lstrip("-").isdigit()


def _unit(unit: str) -> str:
    return "" if unit == "1" else clean(unit, 40)
