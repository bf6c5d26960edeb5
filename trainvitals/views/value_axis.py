"""Where a value stands on its axis: linear, logarithmic, or symmetric-logarithmic."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Scale
from trainvitals.views.symlog import power_label, round_numbers, symlog, threshold, ticks


class ValueAxis:
    """Where a value stands on the axis: itself, or its symmetric logarithm with labels of its own."""

    def __init__(self, scale: str, values: np.ndarray) -> None:
        finite = values[np.isfinite(values)]
        positive = finite[finite > 0]
        if scale == Scale.SYMLOG:  # a symmetric axis needs two sides, or decades
            scale = _of_one_sign(finite)
        self.is_log, self.is_symlog = scale == Scale.LOG, scale == Scale.SYMLOG
        self.linear = threshold(finite) if self.is_symlog else 1.0
        self.floor = float(positive.min()) / 2 if positive.size else 1e-12
        self.layout = self._layout(finite, positive)

    def _layout(self, finite: np.ndarray, positive: np.ndarray) -> dict:
        """Return what plotly has to know of the axis."""
        if self.is_symlog:
            positions, texts = ticks(finite, self.linear)
            return {"tickvals": positions, "ticktext": texts}
        if self.is_log:
            numbers = round_numbers(positive)
            return {"type": "log", "tickvals": numbers, "ticktext": [power_label(n) for n in numbers]}
        is_flat = finite.size > 0 and finite.min() == finite.max() > 0
        return {"rangemode": "tozero"} if is_flat else {}

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return the positions of the values, NaN for those that have none on this axis."""
        values = np.asarray(values, float)
        values = np.where(np.isfinite(values), values, np.nan)
        if self.is_symlog:
            return symlog(values, self.linear)
        return np.where(values > 0, values, np.nan) if self.is_log else values

    def clipped(self, values: np.ndarray) -> np.ndarray:
        """The same for the edge of a band: on a logarithmic axis it ends at the floor."""
        return self.of(np.maximum(values, self.floor) if self.is_log else values)


def _of_one_sign(finite: np.ndarray) -> Scale:
    """Return the plainest scale that serves a symmetric logarithm's purpose on these values."""
    if finite.size and finite.min() > 0:
        return Scale.LOG
    if finite.size and finite.max() < 0 and finite.min() > 10 * finite.max():
        return Scale.LINEAR
    return Scale.SYMLOG
