"""How the weights of the whole model grow, from the norms of their tensors.

Legend: n points, K tensors.
"""

from __future__ import annotations

import numpy as np

from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Layers, Series

NAME = "weights.norm.value"
_SHARE = 0.05  # of the largest initial norm: smaller tensors (biases, mostly) grow by large factors without harm


def total_norm(run: RunFacts) -> Series:
    """Return ‖θ‖ over all tensors at every measurement at which each is finite."""
    norms = run.layers(NAME)
    finite = np.isfinite(norms.value).all(1) if norms else np.zeros(len(norms), bool)
    return Series(NAME, norms.step[finite], np.sqrt(np.sum(norms.value[finite] ** 2, axis=1)))


def large_tensors(run: RunFacts) -> Layers:
    """Return the norms of the tensors that were not small beside the largest at the first measurement."""
    norms = run.layers(NAME)
    if not norms:
        return norms
    first = norms.value[0]
    chosen = np.isfinite(first) & (first > 0) & (first >= _SHARE * np.nanmax(first))
    return Layers(NAME, norms.step, norms.value[:, chosen], tuple(np.array(norms.keys, object)[chosen]))


def largest_growth(run: RunFacts) -> Series:
    """Return the largest ‖θ‖/‖θ(0)‖ so far."""
    norm = total_norm(run)
    return norm.with_values(np.maximum.accumulate(norm.value / norm.value[0])) if norm else norm


def largest_jump(run: RunFacts) -> Series:
    """Return the largest growth of ‖θ‖ between two measurements so far; small weights may double in the first two."""
    norm = total_norm(run)
    if len(norm) < 5:
        return Series(norm.name, norm.step[:0], norm.value[:0])
    return Series(norm.name, norm.step[3:], np.maximum.accumulate(norm.value[3:] / norm.value[2:-1]))
