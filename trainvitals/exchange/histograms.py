"""Histograms of other programs as densities over a grid, which the waterfall chart draws."""

from __future__ import annotations

import math

import numpy as np

from trainvitals.schema import Chart, Description, Reading

MAX_BINS = 65_536


def density_of(bins: np.ndarray) -> Reading | None:
    """Return a histogram as a density at the middles of its bins; None for one without content.

    Args:
        bins: (k, 3) of left edge, right edge and count.

    The outermost bins of old files reach to ±1.8e308: they are left out where they are empty, and cut to the
    width of their neighbour where they are not. A bin without width counts as one of the median width.
    """
    if bins.ndim != 2 or bins.shape[1:] != (3,) or not len(bins) or len(bins) > MAX_BINS:
        return None
    left, right, count = bins.T
    total = count.sum()
    if not total > 0 or not math.isfinite(total):
        return None
    with np.errstate(over="ignore"):
        width = right - left
    used = count > 0
    first, last = np.flatnonzero(used)[[0, -1]]
    left, right, count, width = (part[first : last + 1] for part in (left, right, count, width))
    usual = np.median(width[(width > 0) & np.isfinite(width) & (np.abs(width) < 1e300)]) if len(width) else np.nan
    usual = usual if usual > 0 else 1.0
    is_odd = ~((width > 0) & (np.abs(width) < 1e300))
    middle = np.where(is_odd, np.where(np.abs(left) < 1e300, left, right), left + 0.5 * np.where(is_odd, 0.0, width))
    density = count / total / np.where(is_odd, usual, width)
    return Reading(density, details={"grid": middle, "num_samples": float(total)})


def describe_histogram(name: str, program: str) -> Description:
    """Return the description of a histogram that another program recorded."""
    return Description(
        name=name, title=name, question="", summary=f"A histogram of {program}, as a density.",
        unit="1 / unit of the values", chart=Chart.WATERFALL, keys="grid",
    )  # fmt: skip
