"""Densities on cells that are even on a symmetric-logarithmic axis of eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainvitals.views.symlog import symlog, threshold, ticks

LINEAR_DECADES = 3  # the axis is linear nearer to zero than so many decades below the largest eigenvalue


class SpectrumCells:
    """Cells over all given grids of eigenvalues, each (G,): positions on the axis, and what a density is there."""

    def __init__(self, grids: Sequence[np.ndarray], num_cells: int) -> None:
        every = np.concatenate([np.asarray(grid, float) for grid in grids])
        self._linear = threshold(every, decades=LINEAR_DECADES)
        heights = symlog(every, self._linear)
        self.edges = np.linspace(heights.min(), heights.max(), num_cells + 1)  # (num_cells + 1,)
        self.centres = (self.edges[:-1] + self.edges[1:]) / 2  # (num_cells,)
        self.tickvals, self.ticktext = ticks(every, self._linear)

    def of(self, eigenvalues: np.ndarray) -> np.ndarray:
        """Return the positions of eigenvalues on the axis."""
        return symlog(eigenvalues, self._linear)

    def highest(self, grid: np.ndarray, density: np.ndarray) -> np.ndarray:
        """Return the highest density in each cell: an outlier's narrow peak must not fall between two cells."""
        heights, density = self.of(grid), np.asarray(density, float)
        result = np.interp(self.centres, heights, density, left=0.0, right=0.0)
        cells = np.clip(np.searchsorted(self.edges, heights, side="right") - 1, 0, len(self.centres) - 1)
        np.maximum.at(result, cells, density)
        return result
