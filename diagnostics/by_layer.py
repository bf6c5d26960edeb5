"""One number a layer as a reading: those that have one, and the reasons of those that have none."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trainvitals.diagnostics.base import Missing
from trainvitals.schema import Reading

_MAX_REASONS = 3  # in one sentence; all of them stand in the details of a reading with a value


def by_layer(values: Mapping[str, float], left_out: Mapping[str, str], nothing: str) -> Reading:
    """Return the values by name, with `details["left_out"]` where layers have none.

    Args:
        values: the number of each layer that has one.
        left_out: the reason of each layer that has none.
        nothing: the reason if there is neither.

    Raises:
        Missing: if no layer has a value, with the first reasons.

    >>> by_layer({"fc": 2.0}, {"bias": "it is zero"}, "no layers").details
    {'left_out': {'bias': 'it is zero'}}
    """
    if not values:
        raise Missing(in_words(left_out) or nothing)
    array = torch.tensor(list(values.values()), dtype=torch.float64)
    return Reading(array, keys=tuple(values), details={"left_out": dict(left_out)} if left_out else {})


def in_words(left_out: Mapping[str, str]) -> str:
    """Return the first reasons as one text, and how many more there are.

    >>> in_words({"a": "it is zero", "b": "it is zero", "c": "it is small", "d": "it is zero"})
    'a: it is zero; b: it is zero; c: it is small; and 1 more'
    """
    first = [f"{name}: {why}" for name, why in list(left_out.items())[:_MAX_REASONS]]
    more = len(left_out) - len(first)
    return "; ".join([*first, f"and {more} more"] if more else first)
