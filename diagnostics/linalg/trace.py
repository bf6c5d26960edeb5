"""The trace of an operator by Hutchinson's estimator (1990), with an honest standard error.

P size of the operator, n probe vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from trainvitals.diagnostics.linalg.finite import finite
from trainvitals.diagnostics.linalg.krylov import Operator


@dataclass(frozen=True)
class TraceEstimate:
    """The mean of zᵀAz over the probes and its standard error."""

    value: float
    standard_error: float
    num_probes: int  # products with the operator
    converged: bool | None  # standard error ≤ tol · |value|; None: no tolerance was asked for
    samples: np.ndarray  # (n,) zᵀAz


def hutchinson(
    operator: Operator,
    *,
    generator: torch.Generator,
    tol: float | None = None,
    min_probes: int = 16,
    max_probes: int = 64,
) -> TraceEstimate:
    """Estimate tr A = E[zᵀAz] with z of independent signs ±1, the signs of least variance.

    The standard error is s/√n with the unbiased sample variance s². With a tolerance, probes are drawn
    until s/√n ≤ tol · |mean|, judged from `min_probes` on: on the error, not on the change of the
    running mean, which a single small step makes look settled. A diagonal operator is exact.

    Args:
        operator: (P, P), with `operator @ v`.
        generator: draws the signs, on the CPU.
        tol: relative standard error to stop at; None draws `max_probes`.
        min_probes: fewest products, ≥ 2.
        max_probes: most products.

    Raises:
        ValueError: if fewer than two probes are allowed.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Hutchinson 1990; variance 2(‖A‖²_F − Σ A²_ii), Avron and Toledo 2011, §4.

    Example:
        >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
        >>> found = hutchinson(A, generator=torch.Generator().manual_seed(0), max_probes=64)
        >>> abs(found.value - 5) < 3 * found.standard_error
        True
    """
    if not 2 <= min_probes <= max_probes:
        raise ValueError(
            f"expected 2 ≤ min_probes ≤ max_probes, got min_probes={min_probes}, max_probes={max_probes} "
            "in hutchinson; a standard error needs at least two probes"
        )
    samples: list[float] = []
    while len(samples) < max_probes:
        samples.append(_sample(operator, generator))
        if tol is not None and len(samples) >= min_probes and _standard_error(samples) <= tol * abs(np.mean(samples)):
            break
    value, error = float(np.mean(samples)), _standard_error(samples)
    converged = None if tol is None else error <= tol * abs(value)
    return TraceEstimate(value, error, len(samples), converged, np.array(samples))


def _sample(operator: Operator, generator: torch.Generator) -> float:
    signs = torch.randint(2, (operator.shape[0],), generator=generator) * 2 - 1  # (P,)
    z = signs.to(operator.device, operator.dtype)
    return float(torch.dot(z.double(), finite(operator @ z).double()))


def _standard_error(samples: list[float]) -> float:
    return float(np.std(samples, ddof=1)) / math.sqrt(len(samples))
