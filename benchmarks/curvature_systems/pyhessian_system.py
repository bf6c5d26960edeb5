"""PyHessian: power iteration with deflation, Hutchinson, Lanczos; one graph for all products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from curvature_models import Task
from pyhessian import hessian as PyHessian
from torch import Tensor, nn

from curvature_systems.base import NUM_TOP, Answer, Quadrature, Setting, System

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MOST_ITERATIONS = 150  # for each eigenvalue


class PyHessianSystem(System):
    """Finds the largest in size; it is told how many of them will be negative, and asked for as many more."""

    name: ClassVar[str] = "PyHessian"

    def top_settings(self, num_negative: int, k: int) -> list[list[Setting]]:
        return [[{"tol": tol, "extra": num_negative} for tol in TOLERANCES]]

    def top(self, task: Task, setting: Setting, seed: int, k: int = NUM_TOP) -> Answer:
        torch.manual_seed(seed)
        peer, count = _counted(task)
        values, _ = peer.eigenvalues(maxIter=MOST_ITERATIONS, tol=setting["tol"], top_n=k + setting["extra"])
        self.prepare(task)
        return Answer(np.sort(values)[::-1][:k], count())

    def trace(self, task: Task, method: str, size: float, seed: int) -> Answer:
        """Return Hutchinson's mean of `size` products; tol=0 keeps it from stopping on a small change."""
        torch.manual_seed(seed)
        peer, count = _counted(task)
        samples = peer.trace(maxIter=int(size), tol=0)
        self.prepare(task)
        return Answer(np.array([np.mean(samples)]), count())

    def density(self, task: Task, num_runs: int, num_steps: int, seed: int) -> Quadrature:
        """Return nodes and weights, with `torch.eig` put back: PyHessian calls it, and torch has removed it."""
        torch.manual_seed(seed)
        peer, _ = _counted(task)
        with _eig():
            nodes, weights = peer.density(iter=num_steps, n_v=num_runs)
        self.prepare(task)
        return Quadrature(np.concatenate(nodes), np.concatenate(weights) / num_runs)


def _counted(task: Task) -> tuple[Any, Callable[[], int]]:
    """Return PyHessian's object and the count of its products: it clears gradients once for each."""
    peer = PyHessian(task.model, task.criterion, data=(task.x, task.y), cuda=False)
    calls = []

    def zero_grad(*_: Any, **__: Any) -> None:
        calls.append(None)
        nn.Module.zero_grad(task.model)

    task.model.zero_grad = zero_grad

    def count() -> int:
        del task.model.zero_grad
        task.model.zero_grad(set_to_none=True)  # breaks the cycle that it leaves in `.grad`
        return len(calls)

    return peer, count


@contextmanager
def _eig() -> Iterator[None]:
    def eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    removed, torch.eig = torch.eig, eig
    try:
        yield
    finally:
        torch.eig = removed
