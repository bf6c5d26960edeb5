"""How far Ritz values are from eigenvalues.

m Ritz pairs.
"""

import numpy as np


def ritz_errors(values: np.ndarray, residuals: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """Return estimates (m,) of |θ − λ|: min(r, r²/gap) + rounding.

    r is the residual without its rounding, which moves an eigenvalue in first order and is added. r alone
    is a bound. r²/gap is one if no eigenvalue but λ lies within gap of θ; the gap is taken from the
    other Ritz values, min_j |θ_j − θ| − r_j, so the estimate assumes that they show the spectrum around θ:
    not so within a cluster tighter than r, where only r holds, nor for copies that were not looked for.

    Args:
        values: Ritz values θ (m,), ascending.
        residuals: ‖A y − θ y‖ (m,).
        rounding: the part of the residuals that is rounding of products (m,).

    Source: Parlett, The Symmetric Eigenvalue Problem (1998), Theorem 11.7.1 (Kato, Temple).

    Example:
        >>> ritz_errors(np.array([0.0, 10.0]), np.array([1.0, 1e-2]), np.zeros(2)).round(7).tolist()  # 1e-4 / (10 − 1)
        [0.1001001, 1.11e-05]
    """
    rest = np.sqrt(np.maximum(residuals**2 - rounding**2, 0.0))
    distance = np.abs(values[:, None] - values) - residuals  # (m, m), to the nearest that θ_j may stand for
    np.fill_diagonal(distance, np.inf)
    gap = distance.min(1, initial=np.inf)
    known = (gap > rest) & np.isfinite(gap)
    return np.where(known, rest**2 / np.where(known, gap, 1.0), rest) + rounding
