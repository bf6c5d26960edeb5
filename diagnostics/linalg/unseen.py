"""Whether a Lanczos run could have missed an eigenvalue.

P size of the operator, m steps.
"""

from __future__ import annotations

import math

import numpy as np


def chance_unseen(T: np.ndarray, value: float, dimension: int) -> float:
    """Return a bound on the probability that an eigenvalue ≥ `value` was there and this run did not see it.

    The run started from a vector drawn evenly from the sphere in P dimensions, T (m, m) is its tridiagonal
    matrix. No measure with the moments that it has seen puts more mass on a point t outside its Ritz values than
    Christoffel's function ρ(t) = 1/Σ_j p_j(t)² = x_1²/‖x‖², (T − t) x = e_m, which falls as t goes up. A random
    unit vector has less than ρ of its square on a given direction with probability ≤ √(2ρP/π).

    1.0 if T has a Ritz value ≥ `value`: then there is such an eigenvalue.

    Source: Chebyshev, Markov, Stieltjes; Golub and Meurant, Matrices, Moments and Quadrature (2010), §2.

    Example:
        >>> T = np.diag(np.zeros(6)) + np.diag(np.full(5, 0.5), 1) + np.diag(np.full(5, 0.5), -1)  # on [−1, 1]
        >>> chance_unseen(T, 5.0, 1000) < 1e-3, chance_unseen(T, 1.01, 1000)
        (True, 1.0)
    """
    if np.linalg.eigvalsh(T)[-1] >= value:
        return 1.0
    last = np.zeros(len(T))
    last[-1] = 1.0
    x = np.linalg.solve(T - value * np.eye(len(T)), last)
    return min(1.0, math.sqrt(float(x[0] ** 2 / (x @ x)) * 2 * dimension / math.pi))
