"""The symmetric logarithm: linear around zero, logarithmic outside, for signed values over decades.

Plotly has no such axis, so values are transformed here and the axis is given its labels.
"""

from __future__ import annotations

import numpy as np


def symlog(values: np.ndarray, threshold: float) -> np.ndarray:
    """Return sign(v) · log10(1 + |v| / threshold).

    >>> symlog(np.array([-9.0, 0.0, 99.0]), 1.0).tolist()
    [-1.0, 0.0, 2.0]
    """
    values = np.asarray(values, float)
    return np.sign(values) * np.log10(1 + np.abs(values) / threshold)


def inverse(heights: np.ndarray, threshold: float) -> np.ndarray:
    """Return the values whose symmetric logarithm is given."""
    heights = np.asarray(heights, float)
    return np.sign(heights) * threshold * (10 ** np.abs(heights) - 1)


def threshold(values: np.ndarray, decades: int = 4) -> float:
    """Return the power of ten below which the axis is linear: `decades` below the largest size.

    >>> threshold(np.array([-0.0002, 0.0, 350.0]))
    0.01
    """
    sizes = np.abs(np.asarray(values, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not sizes.size:
        return 1.0
    low, high = np.floor(np.log10(sizes.min())), np.floor(np.log10(sizes.max()))
    return float(10.0 ** max(low, high - decades))


def ticks(values: np.ndarray, linear: float) -> tuple[list[float], list[str]]:
    """Return positions and labels of powers of ten that span the values, at most about nine of them."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return [0.0], ["0"]
    up, down = (_powers(side, linear) for side in (max(finite.max(), 0), max(-finite.min(), 0)))
    numbers = [*(-p for p in reversed(down)), 0.0, *up]
    return symlog(np.array(numbers), linear).tolist(), [_power_label(n) for n in numbers]


def _powers(largest: float, linear: float) -> list[float]:
    if largest <= linear:
        return []
    first, last = round(np.log10(linear)), int(np.floor(np.log10(largest)))
    stride = max(1, -(-(last - first + 1) // 4))
    return [10.0**p for p in range(last, first, -stride)][::-1] or [10.0**last]


def _power_label(value: float) -> str:
    if value == 0:
        return "0"
    sign, power = "−" if value < 0 else "", round(np.log10(abs(value)))
    return f"{sign}{10.0**power:g}" if -3 <= power <= 4 else f"{sign}10<sup>{power}</sup>"
