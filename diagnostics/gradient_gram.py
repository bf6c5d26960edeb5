"""Inner products between the gradients of samples: what single pairs, and the rank of all, are read from.

Legend: N samples of the probe, n of them chosen, m samples of one piece, P trainable parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

# n·n·P multiplications: beyond this, the products cost more than the gradients themselves. Our choice.
MAX_SAMPLES = 128

# The chosen gradients stand side by side until the products are formed: at most this much memory.
_MAX_BYTES = 2**30

_COLUMNS = 2**18  # parameters widened to float64 at a time


def num_chosen(num_samples: int, row_bytes: int, *, max_bytes: int = _MAX_BYTES) -> int:
    """Return n: as many samples as `MAX_SAMPLES` and the memory for their gradients allow.

    >>> num_chosen(1000, row_bytes=4_000_000), num_chosen(50, row_bytes=4_000_000), num_chosen(1000, 2**28)
    (128, 50, 4)
    """
    return min(num_samples, MAX_SAMPLES, max_bytes // max(1, row_bytes))


class GradientGram:
    """⟨g_i, g_j⟩ of chosen samples, from pieces of per-sample gradients as they come.

    Exact in float64 for gradients as they are given; never more than n gradients stand side by side.

    Args:
        chosen: (n,) numbers of the samples, in ascending order.

    >>> gram = GradientGram(torch.tensor([0, 2]))
    >>> gram.add(torch.tensor([[1.0, 0.0], [5.0, 5.0]]))  # samples 0 and 1
    >>> gram.add(torch.tensor([[1.0, 2.0]]))  # sample 2
    >>> gram.matrix().tolist()
    [[1.0, 1.0], [1.0, 5.0]]
    """

    def __init__(self, chosen: Tensor) -> None:
        self.chosen = chosen
        self._rows: list[Tensor] = []
        self._start = 0  # samples seen so far
        self._matrix: Tensor | None = None

    def add(self, gradients: Tensor) -> None:
        """Take the next samples' gradients, (m, P), in; those that are not chosen are passed over."""
        stop = self._start + len(gradients)
        inside = self.chosen[(self.chosen >= self._start) & (self.chosen < stop)] - self._start
        if len(inside):
            self._rows.append(gradients[inside.to(gradients.device)].detach())
        self._start = stop

    def matrix(self) -> Tensor:
        """Return the (n, n) matrix, float64 on the CPU; the gradients are let go."""
        if self._matrix is None:
            rows, self._rows = torch.cat(self._rows) if self._rows else torch.zeros(0, 0), []
            total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
            for start in range(0, rows.shape[1], _COLUMNS):
                piece = rows[:, start : start + _COLUMNS].double()
                total += piece @ piece.T
            self._matrix = ((total + total.T) / 2).cpu()  # a product's two halves may differ in the last bit
        return self._matrix
