"""What is kept of a block's output and of a residual addition: sums of squares, never the tensors.

Legend: R rows (samples × positions), D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SignalSums:
    """Sums over the rows of one block's output, by channel, in float64."""

    num_rows: int
    total: Tensor  # (D,) Σ x
    squares: Tensor  # (D,) Σ x²

    @classmethod
    def of(cls, output: Tensor) -> SignalSums:
        """Return the sums of an output (N, ..., D)."""
        rows = output.detach().flatten(0, -2)
        return cls(len(rows), rows.sum(0, dtype=torch.float64), rows.double().square().sum(0))

    def __add__(self, other: SignalSums) -> SignalSums:
        """Return the sums over both."""
        return SignalSums(
            self.num_rows + other.num_rows, self.total + other.total, self.squares + other.squares
        )

    def mean_square(self) -> float:
        """Return the mean over channels of (mean over rows)²."""
        return float((self.total / self.num_rows).square().mean())

    def variance(self) -> float:
        """Return the mean over channels of the variance over rows (without Bessel's correction)."""
        mean = self.total / self.num_rows
        return float((self.squares / self.num_rows - mean.square()).clamp(min=0).mean())

    def rms(self) -> float:
        """Return the root of the mean of x² over rows and channels."""
        return float((self.squares / self.num_rows).mean().sqrt())


@dataclass(frozen=True)
class BranchSums:
    """Sums of squares of the two sides of one residual addition, in float64."""

    branch: Tensor  # () Σ f(x)²
    stream: Tensor  # () Σ x²

    def __add__(self, other: BranchSums) -> BranchSums:
        """Return the sums over both."""
        return BranchSums(self.branch + other.branch, self.stream + other.stream)
