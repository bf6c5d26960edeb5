"""How the Hessian products of a watched model are made, and what finite differences add to an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from trainvitals.diagnostics.linalg.products import Products
from trainvitals.probes.second_derivative import without_second_derivative
from trainvitals.probes.subject import Subject, describe_batch
from trainvitals.schema import Reading

_MARGIN = 2.0  # a kink that the step crosses changes a product half as much, at twice the step, as it is wrong


def products_of(
    subject: Subject, requested: str, max_memory_bytes: int | None, patience: int | None = None
) -> Products:
    """Return how products of this subject are to be made.

    Args:
        subject: the model and its probe.
        requested: one of the options of `Products`.
        max_memory_bytes: bound on the graphs that are held.
        patience: of `Products`; its default if left out.

    Raises:
        ValueError: for an unknown way or an impossible bound.
    """
    products = Products(requested, max_memory_bytes, blame=lambda: without_second_derivative(subject))
    if patience is not None:
        products.patience = patience
    form = [(name, tuple(p.shape), str(p.dtype)) for name, p in subject.model.named_parameters()]
    batches = tuple(describe_batch(chunk) for chunk in subject.train.chunks)
    products.signature = (type(subject.model).__qualname__, tuple(form), batches, subject.mode)
    return products


def widened(readings: Mapping[str, Reading], at_twice_the_step: Mapping[str, Reading]) -> dict[str, Reading]:
    """Return readings whose errors hold what finite differences may add: twice what twice the step changed."""
    return {name: _widened(reading, at_twice_the_step[name]) for name, reading in readings.items()}


def _widened(reading: Reading, other: Reading) -> Reading:
    if reading.value is None:
        return reading
    hvps = reading.hvps + other.hvps
    seconds = reading.seconds + other.seconds
    if other.value is None or np.shape(other.value) != np.shape(reading.value):
        return replace(reading, converged=False, hvps=hvps, seconds=seconds)
    change: Any = _MARGIN * np.abs(np.asarray(reading.value) - np.asarray(other.value))
    error = change if reading.error is None else np.asarray(reading.error) + change
    if np.ndim(reading.value) == 0:
        change, error = float(change), float(error)
    converged = reading.converged if reading.converged is None else bool(reading.converged and other.converged)
    details = {**reading.details, "products_error": change}
    return replace(reading, error=error, converged=converged, hvps=hvps, seconds=seconds, details=details)
