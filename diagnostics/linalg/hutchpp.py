"""The trace of an operator by Hutch++: Hutchinson's estimator beside a sketch of the range.

P size of the operator, m products, k = m/3 vectors of the sketch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainvitals.diagnostics.linalg.krylov import Operator
from trainvitals.diagnostics.linalg.multiply import multiply_rows
from trainvitals.diagnostics.linalg.trace import Deflation, TraceEstimate, estimate_of, random_signs


def hutchpp(operator: Operator, *, generator: torch.Generator, num_products: int) -> TraceEstimate:
    """Estimate tr A = tr QᵀAQ + E[zᵀPAPz], Q an orthonormal basis of A S for signs S (P, k), P = I − QQᵀ.

    A third of the products makes A S, a third A Q, the rest are probes z of independent signs. Free of bias:
    the probes know nothing of Q. The standard error is that of the probes, as in `hutchinson`.

    Args:
        operator: (P, P), with `operator @ v`.
        generator: draws the signs, on the CPU.
        num_products: m ≥ 6; where k = m/3 reaches P, P products give the trace exactly.

    Raises:
        ValueError: if fewer than six products are allowed.
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: Meyer, Musco, Musco, Woodruff 2021, Algorithm 1.

    Example:
        >>> A = torch.diag(torch.tensor([100.0, 50.0] + [0.1] * 98))
        >>> found = hutchpp(A, generator=torch.Generator().manual_seed(0), num_products=30)
        >>> abs(found.value - 159.8) < 3 * found.standard_error + 1e-3
        True
    """
    if num_products < 6:
        raise ValueError(
            f"expected num_products ≥ 6, got {num_products} in hutchpp; a third of them are probes, of which a "
            "standard error needs two"
        )
    size = int(operator.shape[0])
    k = num_products // 3
    if k >= size:
        unit = torch.eye(size, dtype=operator.dtype, device=operator.device)
        trace = float(multiply_rows(operator, unit).double().diagonal().sum())
        return estimate_of([], trace, size)
    rows = orthonormal_rows(multiply_rows(operator, random_signs(operator, generator, k)))
    trace = float((rows.double() * multiply_rows(operator, rows).double()).sum())
    deflation = Deflation(rows, trace)
    probes = deflation.remove_rows(random_signs(operator, generator, num_products - 2 * k))
    products = multiply_rows(operator, probes)
    samples = (probes.double() * products.double()).sum(1).tolist()
    return estimate_of(samples, trace, num_products)


def orthonormal_rows(rows: Tensor) -> Tensor:
    """Return orthonormal rows (k, P) that span those given and, where they are dependent, more than those.

    In float64: k is small, and a sketch of a steep spectrum is far from well conditioned.
    """
    return torch.linalg.qr(rows.double().T)[0].T.to(rows.dtype).contiguous()
