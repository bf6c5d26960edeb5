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
    """Return positions and labels for an axis over these values."""
    numbers = round_numbers(values, smallest=linear)
    return symlog(np.array(numbers), linear).tolist(), [power_label(n) for n in numbers]


def round_numbers(values: np.ndarray, smallest: float = 0.0, most: int = 7) -> list[float]:
    """Return at most about `most` round numbers that lie evenly on a logarithmic axis over the values.

    Zero, and no other number up to `smallest`, is among them if the values lie on both sides of it.

    >>> round_numbers(np.array([3.0, 80.0])), round_numbers(np.array([-2.0, 0.0, 350.0]), 0.1)
    ([5.0, 10.0, 20.0, 50.0], [-1.0, 0.0, 1.0, 10.0, 100.0])
    """
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    sizes = np.abs(finite[finite != 0])
    if not sizes.size:
        return [0.0]
    low, high = float(finite.min()), float(finite.max())
    first, last = (int(np.floor(np.log10(max(size, smallest, 1e-300)))) for size in (sizes.min(), sizes.max()))
    found: list[float] = []
    for mantissas, stride in (((1, 2, 5), 1), *(((1,), stride) for stride in (1, 2, 3, 5, 10, 20, 50, 100))):
        powers = [float(f"{m}e{k}") for k in range(last, first - 1, -stride) for m in mantissas]
        away = [n for n in powers if n > smallest]  # the axis is linear nearer to zero: no room for labels
        found = sorted(n for n in (*(-n for n in away), 0.0, *away) if low <= n <= high)
        if len(found) <= most:
            break
    return found if len(found) >= 2 else sorted({low, *found, high})


def power_label(value: float) -> str:
    """Return a tick's label: a plain number near one, a power of ten far from it.

    >>> power_label(-0.5), power_label(1e-7), power_label(2e6)
    ('−0.5', '10<sup>−7</sup>', '2·10<sup>6</sup>')
    """
    if value == 0:
        return "0"
    sign, size = "−" if value < 0 else "", abs(value)
    if 1e-3 <= size < 1e5:
        return f"{sign}{size:.3g}" if size < 1000 else f"{sign}{size:,.0f}"
    power = int(np.floor(np.log10(size) + 1e-9))
    mantissa = f"{size / 10.0**power:.2g}"
    exponent = f"10<sup>{power}</sup>".replace("-", "−")
    return f"{sign}{exponent}" if mantissa == "1" else f"{sign}{mantissa}·{exponent}"
