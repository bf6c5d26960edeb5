"""What is right: float64, dense where the matrix fits, else two independent codes that must agree.

P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from curvature_models import Task, task
from curvature_systems.base import NUM_TOP, differentiable_attention
from curvature_systems.eigenthings_system import operator_of as eigenthings_operator
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.func import functional_call

DENSE_UP_TO = 5_000  # P
AGREEMENT = 1e-7


@dataclass(frozen=True)
class Top:
    """Converged eigenvalues."""

    values: np.ndarray  # (k,) descending
    num_negative: int  # negative eigenvalues larger in size than the last of them
    source: str


@cache
def top(name: str, quick: bool, k: int = NUM_TOP) -> Top:
    """Return the k largest eigenvalues in float64.

    Raises:
        RuntimeError: if the two codes differ.
    """
    exact = task(name, torch.float64, quick)
    if exact.num_parameters <= DENSE_UP_TO:
        values = dense_eigenvalues(name, quick)
        return Top(values[::-1][:k].copy(), int((values < -values[-k]).sum()), "dense")
    values, num_negative = lanczos_top(exact, k)
    other = _arpack_top(exact, k)
    if not np.allclose(values, other, rtol=AGREEMENT, atol=0):
        raise RuntimeError(f"the references of {exact.label} differ: {values} and {other}")
    return Top(values, num_negative, "two codes, float64, tol 1e-10")


def _arpack_top(exact: Task, k: int, tol: float = 1e-10) -> np.ndarray:
    """Return the k largest eigenvalues by ARPACK on hessian-eigenthings' products.

    Not on curvlinops': with LayerNorm its forward-over-reverse products are 0.4 % off finite differences of gradients
    in float64, and not symmetric (torch 2.13 differentiates the layer's weight gradient wrongly in forward mode).
    """
    operator = eigenthings_operator(exact)
    shape = (exact.num_parameters,) * 2
    with differentiable_attention():
        product = LinearOperator(shape, matvec=lambda v: operator.matvec(torch.as_tensor(v)).numpy(), dtype=np.float64)
        start = np.random.default_rng(1).standard_normal(exact.num_parameters)
        values = eigsh(product, k=k, which="LA", tol=tol, ncv=20 + k, v0=start, return_eigenvectors=False)
    return np.sort(values)[::-1]


def lanczos_top(exact: Task, k: int, tol: float = 1e-10) -> tuple[np.ndarray, int]:
    """Return the k largest eigenvalues of a task in float64, and how many negative ones are larger in size."""
    found = exact.measure("hessian.top", seed=0, k=k, tol=tol, max_iterations=400)
    if not found.converged:
        raise RuntimeError(f"the reference of {exact.label} has not converged")
    bottom = np.asarray(exact.measure("hessian.bottom", seed=0, k=k, tol=1e-3).value)
    return np.asarray(found.value), int((bottom < -found.value[-1]).sum())


@cache
def dense_eigenvalues(name: str, quick: bool) -> np.ndarray:
    """Return all eigenvalues (P,), ascending, of the Hessian in float64: row by row, no code of either side."""
    return np.linalg.eigvalsh(_dense_hessian(task(name, torch.float64, quick)))


def _dense_hessian(exact: Task, num_rows: int = 128) -> np.ndarray:
    names = [n for n, _ in exact.model.named_parameters()]
    leaves = [p.detach().requires_grad_() for p in exact.parameters]
    with differentiable_attention():
        loss = exact.criterion(functional_call(exact.model, dict(zip(names, leaves, strict=True)), (exact.x,)), exact.y)
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        gradient = torch.cat([g.reshape(-1) for g in first])  # (P,)
        rows = []
        for units in torch.eye(len(gradient), dtype=gradient.dtype).split(num_rows):
            found = torch.autograd.grad(gradient, leaves, units, retain_graph=True, is_grads_batched=True)
            rows.append(torch.cat([f.reshape(len(units), -1) for f in found], 1))
    H = torch.cat(rows)
    return ((H + H.T) / 2).numpy()
