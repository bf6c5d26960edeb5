"""TrainVitals, through `tv.measure`: what a user pays, the building of graphs and the checks included."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from curvature_models import Task

from curvature_systems.base import NUM_TOP, Answer, Quadrature, Setting, System
from trainvitals.diagnostics.hessian_trace import HessianTrace

TOLERANCES = (1.0, 0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
MOST_PRODUCTS = 400


class TrainVitals(System):
    """Tuned like the peers, which do not look for further copies of eigenvalues either."""

    name: ClassVar[str] = "TrainVitals"
    is_peer: ClassVar[bool] = False

    def top_settings(self, num_negative: int, k: int) -> list[list[Setting]]:
        return [[{"tol": tol, "verify": verify} for tol in TOLERANCES] for verify in (False, True)]

    def top(self, task: Task, setting: Setting, seed: int, k: int = NUM_TOP) -> Answer:
        reading = task.measure("hessian.top", seed, k=k, max_iterations=MOST_PRODUCTS, **setting)
        return Answer(np.asarray(reading.value), reading.hvps)

    def trace(self, task: Task, method: str, size: float, seed: int) -> Answer:
        """Return `hessian.trace`; the dial is its relative standard error below 1, and a number of products above."""
        tol, most = (size, 5000) if size < 1 else (None, int(size) - HessianTrace.num_deflated)
        reading = task.measure("hessian.trace", seed, method=method.lower(), tol=tol, max_probes=most)
        return Answer(np.array([reading.value]), reading.hvps)

    def density(self, task: Task, num_runs: int, num_steps: int, seed: int) -> Quadrature:
        """Return the density's cells as nodes: their centres, weighed by the density's mass in them."""
        reading = task.measure("hessian.density", seed, num_runs=num_runs, num_steps=num_steps)
        return Quadrature(reading.details["grid"], np.asarray(reading.value) * np.diff(reading.details["edges"]))


class TrainVitalsDefault(TrainVitals):
    """As shipped: tolerance 1e-4, further copies of eigenvalues looked for."""

    name: ClassVar[str] = "TrainVitals, default"

    def top_settings(self, num_negative: int, k: int) -> list[list[Setting]]:
        return [[{"tol": 1e-4, "verify": True}]]
