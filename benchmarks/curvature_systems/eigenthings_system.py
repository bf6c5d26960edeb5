"""hessian-eigenthings: Lanczos with full reorthogonalisation, Hutch++; a new graph for each product."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from curvature_models import Task
from hessian_eigenthings import HessianOperator, lanczos, spectral_density, supervised_loss, trace

from curvature_systems.base import NUM_TOP, Answer, Quadrature, Setting, System

NUM_STEPS = (*range(4, 31), 35, 40, 50, 60)


class Eigenthings(System):
    name: ClassVar[str] = "hessian-eigenthings"

    def top_settings(self, num_negative: int, k: int) -> list[list[Setting]]:
        return [[{"max_iter": steps} for steps in NUM_STEPS if steps > k]]

    def top(self, task: Task, setting: Setting, seed: int, k: int = NUM_TOP) -> Answer:
        found = lanczos(operator_of(task), k=k, which="LA", reorthogonalize=True, seed=seed, **setting)
        return Answer(found.eigenvalues.double().numpy(), found.iterations)

    def trace(self, task: Task, method: str, size: float, seed: int) -> Answer:
        found = trace(operator_of(task), num_matvecs=int(size), method=method.lower(), seed=seed)
        return Answer(np.array([found.estimate]), int(size))

    def density(self, task: Task, num_runs: int, num_steps: int, seed: int) -> Quadrature:
        found = spectral_density(operator_of(task), num_runs=num_runs, lanczos_steps=num_steps, seed=num_runs * seed)
        nodes, weights = found.raw_eigenvalues.numpy().ravel(), found.raw_weights.numpy().ravel()
        present = ~np.isnan(nodes)
        return Quadrature(nodes[present], weights[present] / num_runs)


def operator_of(task: Task) -> HessianOperator:
    return HessianOperator(task.model, [(task.x, task.y)], supervised_loss(task.criterion))
