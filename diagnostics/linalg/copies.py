"""Further copies of eigenvalues that one start vector cannot show: how a second chain rules them out.

m products of that chain.
"""

import math
from dataclasses import dataclass

import numpy as np

# With which a verified run may still have missed a copy, by the bound in `Copies.ruled_out`.
FAILURE_PROBABILITY = 1e-3


@dataclass(frozen=True)
class Copies:
    """Eigenvalues that would change the answer at one end; the lower end is negated."""

    sign: int
    innermost: float  # of the wanted, with its slack: beyond it a value belongs among the wanted
    least: float  # the smallest value that a copy worth finding can have

    def shown(self, T: np.ndarray) -> bool:
        """Tell whether a chain's Ritz values reach in among the wanted."""
        return bool(np.linalg.eigvalsh(self.sign * T)[-1] > self.innermost)

    def ruled_out(self, T: np.ndarray, dimension: int, failure: float = FAILURE_PROBABILITY) -> bool:
        """Tell whether a copy at or beyond `least` is improbable, ≤ `failure`, after a chain with the matrix T (m, m).

        No measure with the moments that the chain has seen puts more mass on a point t outside its Ritz
        values than Christoffel's function ρ(t) = 1/Σ_j p_j(t)² = x_1²/‖x‖², (T − t) x = e_m. A unit start
        vector at random has less than c of its square on a given direction with probability ≤ √(2cP/π).

        Source: Chebyshev, Markov, Stieltjes; Golub and Meurant, Matrices, Moments and Quadrature (2010), §2.
        """
        T = self.sign * T
        if np.linalg.eigvalsh(T)[-1] >= self.least:
            return False
        x = np.linalg.solve(T - self.least * np.eye(len(T)), np.eye(len(T))[-1])
        return float(x[0] ** 2 / (x @ x)) * 2 * dimension / math.pi <= failure**2
