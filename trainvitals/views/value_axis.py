"""Where a value stands on its axis: linear, logarithmic, or symmetric-logarithmic."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Scale
from trainvitals.views.symlog import symlog, threshold, ticks


class ValueAxis:
    """Where a value stands on the axis: itself, or its symmetric logarithm with labels of its own."""

    def __init__(self, scale: str, values: np.ndarray) -> None:
        self.is_log = scale == Scale.LOG
        self.is_symlog = scale == Scale.SYMLOG
        self.linear = threshold(values) if self.is_symlog else 1.0
        positive = values[np.isfinite(values) & (values > 0)]
        self.floor = float(positive.min()) / 2 if positive.size else 1e-12
        self.layout: dict = {"type": "log", "dtick": None, "exponentformat": "power"} if self.is_log else {}
        if self.is_symlog:
            positions, texts = ticks(values, self.linear)
            self.layout = {"tickvals": positions, "ticktext": texts}

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
