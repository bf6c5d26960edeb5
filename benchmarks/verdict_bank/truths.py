"""Onsets from what no rule reads: the dense held-out loss, the wrong labels themselves, exact counts."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter1d

from verdict_bank.setting import FIRED, Expected, Labels, Truth

SLACK = 0.02  # of the run: one measurement of the light probes on either side, and a little


def slack(truth: Truth) -> int:
    """Return how many steps beside the true ones are forgiven."""
    return max(1, round(SLACK * truth.steps[-1]))


def smooth(values: np.ndarray, points: int = 0) -> np.ndarray:
    """Return the running mean of a dense series, (n,): over a twentieth of it, or so many points."""
    return uniform_filter1d(values, points or max(5, len(values) // 20), mode="nearest")


def turn(truth: Truth, column: str = "test_loss") -> tuple[int, int] | None:
    """Return the steps between which a dense held-out loss turned for good, or None if it did not.

    It turned if it ends at least 10 % above its minimum and at least 3 % of its whole fall above it. The
    window holds the steps round the minimum where it is within a tenth of that rise, 2 % of the minimum, or its
    own scatter there.
    """
    loss = smooth(truth[column])
    scatter = float(np.std((truth[column] - loss)[len(loss) // 10 :]))
    at = int(loss.argmin())
    low, end = loss[at], float(np.median(loss[-5:]))
    rise, fall = end - low, loss[0] - low
    if rise < 0.1 * low or rise < 0.03 * fall or at > len(loss) - 6:
        return None
    near = loss <= low + max(0.1 * rise, 0.02 * low, scatter)
    first = at - int(np.argmin(near[at::-1])) + 1 if not near[: at + 1].all() else 0
    last = at + int(np.argmin(near[at:])) - 1 if not near[at:].all() else len(loss) - 1
    return _window(truth, first, last)


def crossing(truth: Truth, column: str, low: float, high: float) -> tuple[int, int] | None:
    """Return the steps at which a rising column first passes `low` and `high`; None if it never passes `high`."""
    values = truth[column]
    if not (values >= high).any():
        return None
    return _window(truth, int(np.argmax(values >= low)), int(np.argmax(values >= high)))


def _window(truth: Truth, first: int, last: int) -> tuple[int, int]:
    steps, room = truth.steps, slack(truth)
    return max(0, int(steps[first]) - room), min(int(steps[-1]), int(steps[last]) + room)


def overfits(truth: Truth) -> Labels:
    """Expect `overfitting` where the dense held-out loss turned, and nothing where it did not."""
    window = turn(truth)
    return {} if window is None else {"overfitting": Expected(FIRED, window)}


def after(condition: str, column: str, low: float, high: float, also: str = "") -> object:
    """Return a labelling: the condition begins while a column rises from `low` to `high`, if it does."""

    def label(truth: Truth) -> Labels:
        window = crossing(truth, column, low, high)
        others = overfits(truth) if also == "overfitting" else {}
        return others if window is None else {**others, condition: Expected(FIRED, window)}

    return label
