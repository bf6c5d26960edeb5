"""curvlinops: forward over reverse, vectors in one vmap; SciPy's eigsh on top of its products."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from curvature_models import Task
from curvlinops import HessianLinearOperator, hutchinson_trace, hutchpp_trace, xtrace
from curvlinops.papyan2020traces.spectrum import fast_lanczos
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from curvature_systems.base import NUM_TOP, Answer, Quadrature, Setting, System

TOLERANCES = (0.5, 0.1, 1e-2, 1e-3)
BASIS_SIZES = (4, 6, 8, 10, 12, 14, 17, 20, 30)  # ncv; eigsh itself takes 20 for five eigenvalues


class Curvlinops(System):
    name: ClassVar[str] = "curvlinops + eigsh"

    def top_settings(self, num_negative: int, k: int) -> list[list[Setting]]:
        return [[{"ncv": ncv, "tol": tol} for tol in TOLERANCES] for ncv in BASIS_SIZES if ncv > k + 1]

    def top(self, task: Task, setting: Setting, seed: int, k: int = NUM_TOP) -> Answer:
        operator = operator_of(task).to_scipy()
        count = 0

        def product(v: np.ndarray) -> np.ndarray:
            nonlocal count
            count += 1
            return operator @ v

        counted = LinearOperator(operator.shape, matvec=product, dtype=operator.dtype)
        start = np.random.default_rng(seed).standard_normal(operator.shape[0]).astype(operator.dtype)
        try:
            values = eigsh(counted, k=k, which="LA", v0=start, return_eigenvectors=False, maxiter=40, **setting)
        except ArpackError:
            values = np.full(k, np.nan)
        return Answer(np.sort(values)[::-1], count)

    def trace(self, task: Task, method: str, size: float, seed: int) -> Answer:
        torch.manual_seed(seed)
        estimate = {"Hutchinson": hutchinson_trace, "Hutch++": hutchpp_trace, "XTrace": xtrace}[method]
        return Answer(np.array([float(estimate(operator_of(task), int(size)))]), int(size))

    def density(self, task: Task, num_runs: int, num_steps: int, seed: int) -> Quadrature:
        """Return nodes and weights of its Lanczos: without the boundaries that its own density spends products on."""
        torch.manual_seed(seed)
        operator = operator_of(task)
        runs = [fast_lanczos(operator, num_steps) for _ in range(num_runs)]
        nodes = np.concatenate([values.numpy() for values, _ in runs])
        return Quadrature(nodes, np.concatenate([vectors[0].numpy() ** 2 for _, vectors in runs]) / num_runs)


def operator_of(task: Task) -> HessianLinearOperator:
    """Return curvlinops' operator on the whole batch, without the products that check for chance in the model."""
    return HessianLinearOperator(task.model, task.criterion, task.parameters, [(task.x, task.y)],
                                 check_deterministic=False)  # fmt: skip
