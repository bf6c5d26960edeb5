"""The whole spectrum of a small operator: all of its columns, and a dense eigenvalue problem.

P size of the operator.
"""

from __future__ import annotations

import numpy as np
import torch

from trainvitals.diagnostics.linalg.krylov import Operator
from trainvitals.diagnostics.linalg.multiply import multiply_rows


def whole_spectrum(operator: Operator) -> tuple[np.ndarray, np.ndarray]:
    """Return all eigenvalues (P,), ascending, and their errors (P,), from P products.

    They are those of (A + Aᵀ)/2, taken in float64. An eigenvalue's error is ‖(A − Aᵀ) u‖/2, u its eigenvector, the
    rounding of products that shows as asymmetry, plus the rounding of the operator's dtype at the largest eigenvalue.

    Memory: P² numbers in float64, on the CPU.

    Raises:
        NonFiniteProduct: if a product holds NaN or infinity.

    Example:
        >>> whole_spectrum(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))[0].round(6).tolist()
        [1.0, 3.0]
    """
    columns = dense(operator)
    values, vectors = np.linalg.eigh((columns + columns.T) / 2)
    asymmetry = np.linalg.norm((columns - columns.T) / 2 @ vectors, axis=0)
    return values, asymmetry + torch.finfo(operator.dtype).eps * float(np.abs(values).max())


def dense(operator: Operator) -> np.ndarray:
    """Return the operator as a matrix (P, P) in float64, from P products.

    >>> dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]])).tolist()
    [[2.0, 1.0], [1.0, 2.0]]
    """
    size = operator.shape[0]
    unit = torch.eye(size, dtype=operator.dtype, device=operator.device)
    return multiply_rows(operator, unit).T.double().cpu().numpy()
