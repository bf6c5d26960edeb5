"""PyHessian as a second opinion, on a copy of the model.

The library leaves its model in eval mode, writes to `.grad`, draws from the global generator, and works
in the default dtype: here all of that happens to a copy, under a forked generator, and is put back.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainvitals.diagnostics.base import Missing, Snapshot
from trainvitals.schema import Reading


def pyhessian_top(snapshot: Snapshot, k: int, tol: float, max_iterations: int) -> Reading:
    """Return PyHessian's k eigenvalues, sorted descending, with residuals measured by our own products.

    It is power iteration with deflation: the k largest in size, not by value, and it stops on the change
    between two iterations. So each eigenpair's residual ‖H v − λ v‖ is computed afterwards, and
    `converged` is judged on that.

    Raises:
        Missing: if PyHessian cannot run on this model, with the reason.
    """
    k = min(k, sum(p.numel() for p in snapshot.parameters.values()))
    with _peer(snapshot, "pyhessian.top") as (peer, count):
        values, vectors = peer.eigenvalues(maxIter=max_iterations, tol=tol, top_n=k)
    order = np.argsort(values)[::-1]
    residuals = []
    for index in order:
        y = torch.cat([v.detach().reshape(-1) for v in vectors[index]])
        y = y / y.norm()
        residuals.append(float((snapshot.hessian @ y - values[index] * y.to(snapshot.hessian.dtype)).norm()))
    values = np.array(values, dtype=np.float64)[order]
    return Reading(
        value=values, error=np.array(residuals), keys=tuple(f"λ{i + 1}" for i in range(k)),
        converged=bool(max(residuals) <= tol * np.abs(values).max()), hvps=count() + k,
        details={
            "engine": "pyhessian", "residuals": np.array(residuals), "iterations": count(),
            "order": "deflated power iteration: the k largest in size, shown by value",
        },
    )  # fmt: skip


def pyhessian_trace(snapshot: Snapshot, tol: float, max_probes: int) -> Reading:
    """Return the mean of PyHessian's Hutchinson samples and their standard error.

    Raises:
        Missing: if PyHessian cannot run on this model, with the reason.
    """
    with _peer(snapshot, "pyhessian.trace") as (peer, count):
        samples = np.array(peer.trace(maxIter=max_probes, tol=tol), dtype=np.float64)
    enough = len(samples) > 1
    error = float(samples.std(ddof=1) / np.sqrt(len(samples))) if enough else None
    value = float(samples.mean())
    return Reading(
        value=value, error=error, converged=error is not None and error <= tol * abs(value), hvps=count(),
        details={"engine": "pyhessian", "num_probes": len(samples),
                 "stopping": "change of the running mean below tol"},
    )  # fmt: skip


@contextlib.contextmanager
def _peer(snapshot: Snapshot, purpose: str) -> Iterator[tuple[Any, Callable[[], int]]]:
    """Give a PyHessian object on a copy of the model, and a function that counts its products so far."""
    if snapshot.mode != "eval":
        raise Missing("PyHessian measures in eval mode only; use engine='native' for mode='train'")
    model, loss, batches = snapshot.isolated_model()
    assert loss is not None  # a model that is not called through forward= has one
    seed = int(torch.randint(2**62, (), generator=snapshot.generator(purpose)))
    with _quiet(model, seed):
        try:
            yield _built(model, loss, batches)
        except Exception as error:
            raise Missing(f"PyHessian failed with {type(error).__name__}: {error}; use engine='native'") from error
        finally:
            nn.Module.zero_grad(model, set_to_none=True)  # the gradients hold the graph that holds them


def _built(
    model: nn.Module, loss: Callable[..., Tensor], batches: list[tuple[Any, Any, float]]
) -> tuple[Any, Callable[[], int]]:
    from pyhessian import hessian

    first = next(model.parameters())
    data: dict[str, Any] = {"data": batches[0][:2]}  # one graph for all products
    if len(batches) > 1:
        data = {"dataloader": [batch[:2] for batch in batches]}  # weighted by inputs.size(0), a graph a product
    calls = 0
    clear = model.zero_grad

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        clear(*args, **kwargs)

    peer = hessian(model, loss, cuda=first.is_cuda, **data)
    # it clears gradients once for each product, and twice more for each batch of a loader: the only count it gives
    model.zero_grad = counted
    per_product = 1 + 2 * len(batches) if len(batches) > 1 else 1
    return peer, lambda: calls // per_product


@contextlib.contextmanager
def _quiet(model: nn.Module, seed: int) -> Iterator[None]:
    """Put back what PyHessian changes in the process: generators, default dtype, output, warnings."""
    first = next(model.parameters())
    default = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[first.device] if first.is_cuda else []))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the other kernels have no double backward
        stack.callback(torch.set_default_dtype, default)
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        torch.set_default_dtype(first.dtype)  # its start vectors are in the default dtype
        yield
