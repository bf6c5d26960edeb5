"""Where a point of a run stands on an axis that runs share: its step, its time, its tokens, or its train loss.

Legend: n points of a metric, m points of what they are aligned by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

STEP, TIME, TOKENS, LOSS = "step", "time", "tokens", "train loss"
ALIGNMENTS = (STEP, TIME, TOKENS, LOSS)
TITLES = {STEP: "step", TIME: "minutes since the start", TOKENS: "tokens", LOSS: "train loss (falls to the right)"}
TOKEN_NAMES = ("tokens", "num_tokens", "tokens_seen", "num_tokens_seen", "num_input_tokens_seen", "total_tokens")
LOSS_NAMES = ("loss.train", "train_loss", "train/loss", "batch_loss", "loss")


def first_known(names: Sequence[str], known: Callable[[str], bool]) -> str | None:
    """Return the first of the names that a run has.

    >>> first_known(LOSS_NAMES, {"loss", "train_loss"}.__contains__)
    'train_loss'
    """
    return next((name for name in names if known(name)), None)


def aligned(points: pd.DataFrame, by: str, reference: pd.DataFrame | None = None, started: float = 0.0) -> np.ndarray:
    """Return the place of each point (n,) on the shared axis, NaN where it has none.

    Tokens and losses are taken on the straight line between two steps at which they were known; before the first and
    after the last there is none.

    Args:
        points: of a metric, `step` and `time`.
        by: one of `ALIGNMENTS`.
        reference: points of the tokens or of the train loss.
        started: when the run began, in seconds since the epoch.

    Raises:
        ValueError: for another alignment.

    >>> loss = pd.DataFrame({"step": [0, 10], "value": [2.0, 1.0]})
    >>> aligned(pd.DataFrame({"step": [0, 5, 20]}), LOSS, loss).tolist()
    [2.0, 1.5, nan]
    """
    at = points["step"].to_numpy(float)
    if by == STEP:
        return at
    if by == TIME:
        return (points["time"].to_numpy(float) - started) / 60
    if by not in ALIGNMENTS:
        raise ValueError(f"expected one of {', '.join(ALIGNMENTS)}, got {by!r} in aligned(); choose one of them")
    steps, values = _known(reference)
    if not len(steps):
        return np.full(len(at), np.nan)
    return np.interp(at, steps, values, left=np.nan, right=np.nan)


def _known(reference: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and finite values (m,), one a step, the last where a step has several."""
    if reference is None or reference.empty:
        return np.empty(0), np.empty(0)
    values = reference["value"].to_numpy(float)
    rows = reference.loc[np.isfinite(values)].drop_duplicates("step", keep="last").sort_values("step")
    return rows["step"].to_numpy(float), rows["value"].to_numpy(float)


def first_at_or_below(loss: pd.DataFrame, level: float) -> float | None:
    """Return the step at which a loss first reached a level, on the straight line between two points; None if never.

    >>> first_at_or_below(pd.DataFrame({"step": [0, 10, 20], "value": [2.0, 1.0, 1.5]}), 1.5)
    5.0
    """
    steps, values = _known(loss)
    below = np.flatnonzero(values <= level)
    if not below.size:
        return None
    i = int(below[0])
    if i == 0:
        return float(steps[0])
    part = (values[i - 1] - level) / (values[i - 1] - values[i])
    return float(steps[i - 1] + part * (steps[i] - steps[i - 1]))


def common_level(losses: Sequence[pd.DataFrame]) -> float | None:
    """Return the lowest loss that every run reached: the largest of their lowest ones; None where one has no loss.

    >>> common_level([pd.DataFrame({"step": [0, 1], "value": [2.0, v]}) for v in (0.5, 0.1)])
    0.5
    """
    lowest = [_known(loss)[1] for loss in losses]
    return max(float(v.min()) for v in lowest) if lowest and all(len(v) for v in lowest) else None


def value_at(points: pd.DataFrame, step: float) -> float | None:
    """Return a metric's value at a step, on the straight line between two measurements; None outside of them."""
    steps, values = _known(points)
    value = float(np.interp(step, steps, values, left=np.nan, right=np.nan)) if len(steps) else float("nan")
    return None if np.isnan(value) else value
