"""The trace of an operator by Hutchinson's estimator (1990), with an honest standard error.

P size of the operator, n probe vectors, j vectors that are deflated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from trainvitals.diagnostics.linalg.krylov import Operator
from trainvitals.diagnostics.linalg.multiply import block_size, multiply_rows

_AT_ONCE = 16  # probes held at a time
TWO_ERRORS = 0.97725  # the normal distribution's mass below two standard errors


@dataclass(frozen=True)
class TraceEstimate:
    """The mean of the samples and its error."""

    value: float
    standard_error: float  # scaled so that twice of it covers as much at any number of probes
    num_probes: int  # products with the operator; of `hutchinson`, those of the deflated vectors not counted
    converged: bool | None  # standard error ≤ tol · |value|; None: no tolerance was asked for
    samples: np.ndarray  # (n,) zᵀAz, with the exact part added


@dataclass(frozen=True)
class Deflation:
    """Orthonormal vectors on which the trace is known: a part of the space that needs no probes."""

    rows: Tensor  # (j, P)
    trace: float  # tr QᵀAQ over them

    def remove(self, vector: Tensor) -> Tensor:
        """Return (I − QQᵀ) v, (P,)."""
        return vector - (self.rows @ vector) @ self.rows

    def remove_rows(self, vectors: Tensor) -> Tensor:
        """Return (I − QQᵀ) v for each row v, (k, P)."""
        return vectors - (vectors @ self.rows.T) @ self.rows


def hutchinson(
    operator: Operator,
    *,
    generator: torch.Generator,
    tol: float | None = None,
    min_probes: int = 12,
    max_probes: int = 64,
    deflation: Deflation | None = None,
) -> TraceEstimate:
    """Estimate tr A = E[zᵀAz] with z of independent signs ±1, the signs of least variance.

    With orthonormal vectors Q whose QᵀAQ is known the estimate is tr QᵀAQ + E[zᵀPAPz], P = I − QQᵀ: as
    free of bias, for Q is independent of z, and with what Q holds of ‖A‖²_F gone from the variance. A Krylov
    basis holds most of the outliers after a few products (Krylov-aware trace estimation).

    The standard error is s/√n with the unbiased sample variance s², scaled by Student's t over the normal
    quantile at two errors (by 1.13 for 12 probes, by 1.02 for 64), so that twice of it covers 95 % for few
    probes too. With a tolerance, probes are drawn until it is ≤ tol · |mean|, judged from `min_probes` on:
    on the error, not on the change of the running mean, which a single small step makes look settled.
    A diagonal operator is exact without Q, any operator where Q spans the whole space.

    Args:
        operator: (P, P), with `operator @ v`.
        generator: draws the signs, on the CPU.
        tol: relative standard error to stop at; None draws `max_probes`.
        min_probes: fewest products, ≥ 2.
        max_probes: most products.
        deflation: Q and tr QᵀAQ.

    Raises:
        ValueError: if fewer than two probes are allowed.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Hutchinson 1990; variance 2(‖A‖²_F − Σ A²_ii), Avron and Toledo 2011, §4; deflation, Meyer,
    Musco, Musco, Woodruff 2021 (Hutch++), §3, on a Krylov space, Chen and Hallman 2023.

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
    if deflation is not None and len(deflation.rows) == operator.shape[0]:
        return TraceEstimate(deflation.trace, 0.0, 0, None if tol is None else True, np.zeros(0))
    samples: list[float] = []
    while len(samples) < max_probes:
        # up to the first look all at once; a block's samples beyond the stop are left out: the same as one by one
        count = max(block_size(operator), (min_probes if tol is not None else max_probes) - len(samples))
        for sample in _samples(operator, generator, deflation, min(count, _AT_ONCE, max_probes - len(samples))):
            samples.append(sample)
            if tol is not None and len(samples) >= min_probes and _is_settled(samples, tol, deflation):
                return estimate_of(samples, deflation.trace if deflation else 0.0, len(samples), tol)
    return estimate_of(samples, deflation.trace if deflation else 0.0, len(samples), tol)


def estimate_of(samples: list[float], exact: float, num_products: int, tol: float | None = None) -> TraceEstimate:
    """Return the estimate from samples of what is not known exactly, none if all is."""
    value = exact + (float(np.mean(samples)) if samples else 0.0)
    error = standard_error(samples) if samples else 0.0
    converged = None if tol is None else error <= tol * abs(value)
    return TraceEstimate(value, error, num_products, converged, exact + np.array(samples))


def random_signs(operator: Operator, generator: torch.Generator, count: int) -> Tensor:
    """Return independent signs ±1 (k, P), the same numbers whatever the operator's dtype and device."""
    rows = [torch.randint(2, (operator.shape[0],), generator=generator) * 2 - 1 for _ in range(count)]
    return torch.stack(rows).to(operator.device, operator.dtype)


def _samples(operator: Operator, generator: torch.Generator, deflation: Deflation | None, count: int) -> list[float]:
    probes = random_signs(operator, generator, count)
    if deflation is not None:
        probes = deflation.remove_rows(probes)
    return (probes.double() * multiply_rows(operator, probes).double()).sum(1).tolist()


def _is_settled(samples: list[float], tol: float, deflation: Deflation | None) -> bool:
    value = float(np.mean(samples)) + (deflation.trace if deflation else 0.0)
    return standard_error(samples) <= tol * abs(value)


def standard_error(samples: list[float]) -> float:
    """Return s/√n, scaled by Student's t over the normal quantile at two errors."""
    scale = float(stdtrit(len(samples) - 1, TWO_ERRORS)) / 2
    return scale * float(np.std(samples, ddof=1)) / math.sqrt(len(samples))
