"""The diagonal of an operator from products with random signs.

P size of the operator, n probe vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from trainvitals.diagnostics.linalg.krylov import Operator
from trainvitals.diagnostics.linalg.multiply import multiply_rows
from trainvitals.diagnostics.linalg.trace import TWO_ERRORS


@dataclass(frozen=True)
class DiagonalEstimate:
    """Samples z ⊙ Az of the diagonal; what is summed over parts of it is estimated from the same samples."""

    samples: Tensor  # (n, P)

    @property
    def value(self) -> Tensor:
        """The estimate of each entry, (P,)."""
        return self.samples.mean(0)

    @property
    def standard_error(self) -> Tensor:
        """Its standard error, (P,), scaled by Student's t so that twice of it covers as much at any n."""
        return _scale(len(self.samples)) * self.samples.std(0) / math.sqrt(len(self.samples))

    def mean(self, part: slice) -> tuple[float, float]:
        """Return the mean over the entries of a part and its standard error."""
        sums = self.samples[:, part].double().mean(1)  # (n,)
        return float(sums.mean()), _scale(len(sums)) * float(sums.std()) / math.sqrt(len(sums))

    def mean_square(self, part: slice) -> tuple[float, float]:
        """Return the mean of the squared entries of a part and its standard error.

        The square of a mean holds that mean's variance. Products of different samples do not: the estimate is
        Σ_{k≠l} ⟨x_k, x_l⟩ / (n(n−1)p), free of bias and so at times below 0; its error is the jackknife's over samples.
        """
        rows = self.samples[:, part].double()  # (n, p)
        gram = rows @ rows.T / rows.shape[1]
        gram.fill_diagonal_(0)
        n = len(rows)
        whole, of_each = float(gram.sum()), gram.sum(1)
        left_out = (whole - 2 * of_each) / ((n - 1) * (n - 2))  # (n,)
        error = math.sqrt((n - 1) / n * float((left_out - left_out.mean()).square().sum()))
        return whole / (n * (n - 1)), _scale(n) * error


def hutchinson_diagonal(operator: Operator, *, generator: torch.Generator, num_probes: int = 32) -> DiagonalEstimate:
    """Estimate diag A = E[z ⊙ Az] with z of independent signs ±1.

    An entry's variance is Σ_{j≠i} A²_ij / n: a diagonal operator is exact after one product. Memory: 2 n P numbers.

    Args:
        operator: symmetric, (P, P), with `operator @ v`.
        generator: draws the signs, on the CPU.
        num_probes: n ≥ 3, a product each.

    Raises:
        ValueError: if there are fewer than three probes.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Bekas, Kokiopoulou, Saad 2007, "An estimator for the diagonal of a matrix", §1, where signs make the
    denominator n.

    Example:
        >>> A = torch.tensor([[2.0, 0.1], [0.1, 3.0]])
        >>> found = hutchinson_diagonal(A, generator=torch.Generator().manual_seed(0))
        >>> found.value.round(decimals=1).tolist(), found.samples.shape
        ([2.0, 3.0], torch.Size([32, 2]))
    """
    if num_probes < 3:
        raise ValueError(
            f"expected num_probes ≥ 3, got {num_probes} in hutchinson_diagonal; an error of a mean square needs three"
        )
    signs = torch.randint(2, (num_probes, operator.shape[0]), generator=generator) * 2 - 1  # (n, P)
    signs = signs.to(operator.device, operator.dtype)
    return DiagonalEstimate(signs * multiply_rows(operator, signs))


def _scale(num_samples: int) -> float:
    return float(stdtrit(num_samples - 1, TWO_ERRORS)) / 2
