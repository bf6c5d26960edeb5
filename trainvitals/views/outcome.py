"""What the network can do now, in one sentence of facts: its accuracy or loss, beside the best that it had."""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainvitals.verdicts.figures import figure
from trainvitals.views.run_view import RunView
from trainvitals.views.words import number, steps

_WHERE = (("heldout", "held-out"), ("train", "train"))


def outcome(view: RunView) -> str:
    """Return accuracy and loss now and at their best, held-out where that was measured; empty if neither was."""
    for where, words in _WHERE:
        parts = [
            _now(_finite(view, f"accuracy.{where}"), f"{words} accuracy", is_share=True),
            _now(_finite(view, f"loss.{where}"), f"{words} loss", is_share=False),
        ]
        if any(parts):
            said = "; ".join(part for part in parts if part)
            return f"{said[0].upper()}{said[1:]}."
    return ""


def _finite(view: RunView, name: str) -> pd.DataFrame:
    if name not in view.latest:
        return pd.DataFrame({"step": [], "value": []})
    points = view.points(name)
    return points.loc[np.isfinite(points["value"].to_numpy(float))]


def _now(points: pd.DataFrame, what: str, *, is_share: bool) -> str:
    """Return the newest value and the best one, with their steps.

    >>> table = pd.DataFrame({"step": [0, 10, 20], "value": [0.5, 0.9, 0.8]})
    >>> _now(table, "accuracy", is_share=True)
    'accuracy 80 % at step 20, 90 % at its best, at step 10'
    >>> _now(table[:2], "accuracy", is_share=True)
    'accuracy 90 % at step 10, its best so far'
    """
    if points.empty:
        return ""
    values = points["value"].to_numpy(float)
    best = int(values.argmax() if is_share else values.argmin())
    shown = [figure(float(v), "share") if is_share else number(float(v), 3) for v in (values[-1], values[best])]
    head = f"{what} {shown[0]} at step {steps(int(points['step'].iloc[-1]))}"
    if shown[0] == shown[1]:
        return f"{head}, its best so far"
    return f"{head}, {shown[1]} at its best, at step {steps(int(points['step'].iloc[best]))}"
