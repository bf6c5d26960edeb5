"""Further copies of eigenvalues that one start vector cannot show: how a second chain rules them out.

m products of that chain.
"""

from dataclasses import dataclass

import numpy as np

from trainvitals.diagnostics.linalg.unseen import chance_unseen

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
        """Tell whether a copy at or beyond `least` is improbable, ≤ `failure`, after a chain with matrix T (m, m)."""
        return chance_unseen(self.sign * T, self.least, dimension) <= failure
