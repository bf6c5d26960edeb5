"""How many eigenvalues lie beyond the bulk, counted with their copies, or why that is not known.

P size of the operator, m products of a run, j outliers found by the runs before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from trainvitals.diagnostics.linalg.bulk import Bulk, KrylovSpectrum, find_bulk
from trainvitals.diagnostics.linalg.complement import Complement
from trainvitals.diagnostics.linalg.krylov import KrylovBasis, Operator
from trainvitals.diagnostics.linalg.unseen import chance_unseen
from trainvitals.diagnostics.linalg.whole_spectrum import whole_spectrum

FAILURE_PROBABILITY = 1e-3  # with which an eigenvalue beyond the edge may have gone unseen


@dataclass(frozen=True)
class Outliers:
    """The spectrum as the runs have shown it, its bulk, and what keeps the count from being known."""

    spectrum: KrylovSpectrum
    bulk: Bulk
    doubt: str | None  # None: the count is known


def count_outliers(
    operator: Operator, separation: float, *, generator: torch.Generator, num_steps: int, spend_all: bool = False
) -> Outliers:
    """Count the eigenvalues beyond the bulk's upper edge, by the rule of `find_bulk`.

    Lanczos runs, each from a fresh random vector in the complement of the outliers that were found before it: a
    run meets each eigenvalue once, so copies show in later runs. A run ends when the edge is clear: all Ritz
    values above it are settled, and no unsettled one below could open another gap. If it found outliers, they
    are deflated and the next run begins; if not, it goes on until it has ruled out, but with a probability of
    1e-3, every eigenvalue high enough to change the count (≥ lowest outlier / separation; without outliers
    ≥ separation · the highest Ritz value). Then the count is known. If the products end before, it is not.
    An operator of at most `num_steps` dimensions is seen whole.

    Args:
        operator: symmetric, (P, P).
        separation: smallest ratio across the gap, > 1.
        generator: draws the start vectors.
        num_steps: most products.
        spend_all: let the last run go on to the last product, for a finer view of the bulk.

    Raises:
        NonFiniteProduct: if a product holds NaN or infinity.

    Source: the bound on what a run can miss, `chance_unseen`.

    Example:
        >>> A = torch.diag(torch.cat([torch.linspace(-1, 1, 500), torch.tensor([4.0, 5.0, 5.0])]).double())
        >>> found = count_outliers(A, 1.5, generator=torch.Generator().manual_seed(0), num_steps=60)
        >>> found.bulk.num_outliers, found.doubt
        (3, None)
        >>> count_outliers(A, 1.5, generator=torch.Generator().manual_seed(0), num_steps=10).doubt is None
        False
    """
    size = int(operator.shape[0])
    if size <= num_steps:
        values, errors = whole_spectrum(operator)
        spectrum = KrylovSpectrum(values[::-1].copy(), errors[::-1].copy(), np.full(size, 1 / size), size, size)
        return Outliers(spectrum, find_bulk(spectrum, separation), None)
    search = _Search(operator, separation, num_steps)
    while search.num_left and (found := search.run(generator)) is not None:
        search.deflate(found)
    if spend_all:
        search.go_on()
    return Outliers(search.spectrum, search.bulk, search.doubt)


class _Search:
    """Runs on the complement of the outliers found so far."""

    def __init__(self, operator: Operator, separation: float, num_steps: int) -> None:
        rows = torch.empty(0, operator.shape[0], dtype=operator.dtype, device=operator.device)
        self._left = Complement(operator, rows)
        self._separation = separation
        self._values, self._residuals = np.zeros(0), np.zeros(0)  # (j,) outliers of earlier runs
        self.num_left = num_steps
        self.num_products = 0
        self.doubt: str | None = ""

    def run(self, generator: torch.Generator) -> np.ndarray | None:
        """Follow a fresh run until it has settled outliers, and return which; None if it ends the search."""
        self._basis = KrylovBasis(self._left)
        start = torch.randn(self._left.shape[0], generator=generator, dtype=torch.float64)
        self._basis.start(self._left.remove(start.to(self._left.device, self._left.dtype)))
        while self.num_left and not self._basis.exhausted:
            self._step()
            found = self._look()
            self.doubt = self._doubt(found)
            if self.doubt is None:
                return None
            if self.bulk.is_clear and len(found):
                return found
        return self._look() if self._basis.exhausted and self.num_left else None

    def deflate(self, chosen: np.ndarray) -> None:
        """Put Ritz pairs of the newest run among the known outliers."""
        values, residuals, coordinates = self._basis.ritz()
        self._left = self._left.with_more(self._basis.vectors(coordinates[:, chosen]).T, values[chosen])
        self._values = np.r_[self._values, values[chosen]]
        self._residuals = np.r_[self._residuals, residuals[chosen]]

    def go_on(self) -> None:
        """Spend what is left on the newest run."""
        while self.num_left and not self._basis.exhausted:
            self._step()
        self._look()

    def _step(self) -> None:
        self._basis.step()
        self.num_products += 1
        self.num_left -= 1

    def _look(self) -> np.ndarray:
        """Judge all that is known. Returns the newest run's Ritz values beyond the edge, as indices."""
        values, residuals, coordinates = self._basis.ritz()
        size, known = self._left.shape[0], len(self._values)
        weights = np.r_[np.full(known, 1 / size), (1 - known / size) * coordinates[0] ** 2]
        all_values = np.r_[self._values, values]
        order = np.argsort(-all_values, kind="stable")
        self.spectrum = KrylovSpectrum(
            all_values[order], np.r_[self._residuals, residuals][order], weights[order], size, self.num_products
        )
        self.bulk = find_bulk(self.spectrum, self._separation)
        beyond = order[: self.bulk.num_outliers] - known
        return beyond[beyond >= 0]

    def _doubt(self, found: np.ndarray) -> str | None:
        """Say what keeps the count from being known; None if nothing does."""
        count = self.bulk.num_outliers
        if not self.bulk.is_clear:
            return "Ritz values next to the bulk's edge have not settled"
        if len(found) and count:
            return "no run has ruled out further copies of the outliers"
        if self._basis.exhausted:
            return None
        if count:
            lowest = self.spectrum.values[count - 1] - self.spectrum.residuals[count - 1]
            limit = float(lowest / self._separation)
        else:
            limit = self._separation * max(float(self.spectrum.values[0]), self.bulk.scale)
        T = self._basis.latest(self._basis.num_products)
        if chance_unseen(T, limit, self._left.shape[0] - len(self._values)) <= FAILURE_PROBABILITY:
            return None
        return f"an eigenvalue above {limit:.3g} may not have been seen"
