"""Which level of a colour scale a value has: exact zeros have one of their own on a logarithmic scale."""

from __future__ import annotations

import numpy as np

from trainvitals.views.symlog import power_label
from trainvitals.views.value_axis import ValueAxis

ZERO_STEP = 0.06  # of the range: how far below the lowest value the level of zero stands


class ColourLevels:
    """The levels of an array on a value axis, NaN for values without one, and the labels of the colour bar."""

    def __init__(self, values: np.ndarray, height: ValueAxis) -> None:
        self.levels = np.log10(height.of(values)) if height.is_log else height.of(values)
        ticks: dict[float, str] = {}
        if height.is_log:
            ticks = {float(np.log10(n)): power_label(n) for n in height.layout["tickvals"] if n > 0}
            is_zero = values == 0
            if is_zero.any():
                zero = self._below()
                self.levels = np.where(is_zero, zero, self.levels)
                ticks[zero] = "0"
        elif height.is_symlog:
            ticks = dict(zip(height.layout["tickvals"], height.layout["ticktext"], strict=True))
        self.bar = {"tickvals": list(ticks), "ticktext": list(ticks.values())} if ticks else {}

    def _below(self) -> float:
        finite = self.finite()
        return float(finite.min() - max(ZERO_STEP * np.ptp(finite), 0.1)) if finite.size else 0.0

    def finite(self) -> np.ndarray:
        """Return the levels that can be coloured, flat."""
        return self.levels[np.isfinite(self.levels)]
