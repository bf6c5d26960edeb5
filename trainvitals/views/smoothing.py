"""Smoothing over steps: an exponential mean that knows how far apart the points are.

The raw line stays beside it, pale. Points are often measured unevenly: a mean over so many points would smooth a
rarely measured metric far more than one of every step, so the width is in steps.

Legend: n points.
"""

from __future__ import annotations

import numpy as np


def smoothed(steps: np.ndarray, values: np.ndarray, width: float) -> np.ndarray:
    """Return s_i = Σ_{j≤i} v_j e^{−(t_i−t_j)/width} / Σ_{j≤i} e^{−(t_i−t_j)/width}, over the finite values so far.

    A constant stays as it is, and nothing later than a step enters its mean. NaN before the first finite value.

    Args:
        steps: t (n,), in increasing order.
        values: v (n,).
        width: in steps, above 0.

    >>> smoothed(np.array([0.0, 10.0, 20.0]), np.array([1.0, 1.0, 1.0]), 10.0).tolist()
    [1.0, 1.0, 1.0]
    """
    result = np.full(len(values), np.nan)
    total = weight = 0.0
    before = steps[0] if len(steps) else 0.0
    for i, (step, value) in enumerate(zip(steps, values, strict=True)):
        fade = np.exp(-(step - before) / width)
        total, weight, before = total * fade, weight * fade, step
        if np.isfinite(value):
            total, weight = total + value, weight + 1.0
        if weight > 0:
            result[i] = total / weight
    return result
