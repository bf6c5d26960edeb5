"""Both ends of the spectrum of the Hessian of the probe loss.

P trainable parameters, k eigenvalues.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.linalg.finite import NonFiniteProduct
from trainvitals.diagnostics.linalg.lanczos import Eigenpairs, Extremes, lanczos
from trainvitals.schema import Chart, Question, Reading, Scale

ENGINES = ("native", "pyhessian")
LANCZOS_START = "hessian.lanczos"  # names the start vector that all runs on the Hessian share
UNDEFINED = "a product with the Hessian is not finite (the loss has overflowed or diverged)"


@dataclass
class HessianTop(Diagnostic):
    """The k largest algebraic eigenvalues of the Hessian, λ1 ≥ … ≥ λk, by Lanczos.

    λ_i(∇²L(θ)), i = 1..k, in loss per squared unit of weight. The error of each is the estimate
    min(r, r²/gap) plus the rounding of products, r the residual ‖H y − λ y‖ (in `details`), which is a bound,
    and the gap that to the other Ritz values: an estimate, for it assumes that they show the spectrum next to
    λ, and too small for two eigenvalues closer to each other than r.

    Largest by value, not by size: late in training the largest in size can be negative, and power iteration
    would report that one.

    Args:
        k: how many; fewer are given for a model with fewer parameters.
        tol: relative accuracy of each eigenvalue, by its estimated error; a tenth of the largest stands in
            for smaller ones. With `eigenvectors` the residuals have to meet it.
        max_iterations: most Hessian-vector products.
        eigenvectors: put the unit eigenvectors, (P, k), into `details["eigenvectors"]`.
        verify: look for further copies of eigenvalues (least squares with C outputs has C of each): about a
            quarter of the products.
        max_basis: most vectors of size P held at a time, by thick restarts; unless told, as many as fit into
            1 GiB, at least three for each eigenvalue and ten more. Raised to 2 k + 8 + 2 block_size for k of
            both ends together where `hessian.bottom` shares the run. `details["basis_bytes"]` is the memory.
        basis_device: "cpu" keeps these vectors off the accelerator; where the model is, unless told.
        block_size: start vectors of the run. With more than one, copies of eigenvalues are met without being looked
            for, and where blocks of products are cheaper (`products="double backward in blocks"`) passes are saved;
            4 take 1.4 to 1.9 times the products of 1 without verification.
        engine: "native", or "pyhessian" for a second opinion from that library on a copy of the model.

    Source: Lanczos 1950; as a training diagnostic, Sagun et al. 2017; Ghorbani, Krishnan, Xiao 2019.
    """

    name: ClassVar = "hessian.top"
    group: ClassVar = "hessian"
    title: ClassVar = "Largest Hessian eigenvalues"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The sharpest directions of the loss on the train probe; λ1 is the sharpness."
    formula: ClassVar = r"\lambda_1(\nabla^2 L) \ge \dots \ge \lambda_k(\nabla^2 L)"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = UNDEFINED
    source: ClassVar = "Ghorbani, Krishnan, Xiao 2019, §3; stopping: Parlett 1998, §13.2"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.DEFAULT
    interval: ClassVar = 100
    chart: ClassVar = Chart.LINES
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "rank"

    k: int = 5
    tol: float = 1e-4
    max_iterations: int = 200
    eigenvectors: bool = False
    verify: bool = True
    max_basis: int | None = None
    basis_device: str | None = None
    block_size: int = 1
    engine: str = "native"

    def __post_init__(self) -> None:
        _check_eigenvalue_options(self)
        check_engine(self.name, self.engine)
        _check_basis_options(self)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the k eigenvalues, descending, with keys λ1…λk."""
        if self.engine == "pyhessian":
            from trainvitals.diagnostics.linalg.pyhessian_engine import pyhessian_top

            return pyhessian_top(snapshot, self.k, self.tol, self.max_iterations)
        found = snapshot.once(hessian_extremes)
        keys = tuple(f"λ{i + 1}" for i in range(min(self.k, len(found.top.values))))
        return _reading(found, found.top, keys, self.eigenvectors, found.num_products)


@dataclass
class HessianBottom(Diagnostic):
    """The k smallest algebraic eigenvalues of the Hessian, ascending, from the same Lanczos run as the top.

    Negative ones are directions of negative curvature: the loss is not at a minimum there.

    Args:
        k: how many; fewer are given for a model with fewer parameters.
        tol: relative accuracy of each eigenvalue, by its estimated error, as in `hessian.top`.
        max_iterations: most Hessian-vector products, of the run that both ends share.
        eigenvectors: put the unit eigenvectors, (P, k), into `details["eigenvectors"]`.
        verify: look for further copies of eigenvalues; for k = 1 there is nothing to look for.

    Source: as `hessian.top`.
    """

    name: ClassVar = "hessian.bottom"
    group: ClassVar = "hessian"
    title: ClassVar = "Smallest Hessian eigenvalues"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The most negative curvature of the loss on the train probe: how far from a minimum."
    formula: ClassVar = r"\lambda_P(\nabla^2 L) \le \lambda_{P-1}(\nabla^2 L) \le \dots"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = UNDEFINED
    source: ClassVar = "Ghorbani, Krishnan, Xiao 2019, §3; stopping: Parlett 1998, §13.2"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.DEFAULT
    interval: ClassVar = 100
    chart: ClassVar = Chart.LINES
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "rank"

    k: int = 1
    tol: float = 1e-4
    max_iterations: int = 200
    eigenvectors: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        _check_eigenvalue_options(self)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the k eigenvalues, ascending, with keys λ−1…λ−k, counted from the lower end."""
        found = snapshot.once(hessian_extremes)
        keys = tuple(f"λ−{i + 1}" for i in range(min(self.k, len(found.bottom.values))))
        shared = native_top(snapshot) is not None
        reading = _reading(found, found.bottom, keys, self.eigenvectors, 0 if shared else found.num_products)
        return _with_details(reading, shared_with=HessianTop.name) if shared else reading


def hessian_extremes(snapshot: Snapshot) -> Extremes:
    """Return both ends of the spectrum from one Lanczos run for all that is due: call it by `snapshot.once`.

    The run has the tightest tolerance and the largest budget of what is due.
    """
    top, bottom, trace = native_top(snapshot), snapshot.due(HessianBottom.name), snapshot.due("hessian.trace")
    due = [d for d in (top, bottom) if d is not None] or [HessianTop(k=1)]
    # the sharpness is read from the same run, so λ1 is in it whether or not the top is due
    num_top = top.k if top else int(bottom is None or snapshot.due("stability") is not None)
    num_bottom = bottom.k if bottom else 0
    block_size = top.block_size if top else 1
    with defined():
        return lanczos(
            snapshot.hessian, num_top, num_bottom,
            generator=snapshot.generator(LANCZOS_START), tol=min(d.tol for d in due),
            max_iterations=max(d.max_iterations for d in due), vectors=any(d.eigenvectors for d in due),
            verify=any(d.verify for d in due), block_size=block_size,
            num_leading=trace.num_deflated if trace and block_size == 1 else 0,
            max_basis=max(top.max_basis, _least_basis(num_top + num_bottom, block_size))
            if top and top.max_basis else None,
            basis_device=top.basis_device if top else None,
        )  # fmt: skip


def native_top(snapshot: Snapshot) -> HessianTop | None:
    """Return `hessian.top` if it is due at this step and computed here."""
    top = snapshot.due(HessianTop.name)
    return top if top is not None and top.engine == "native" else None


@contextmanager
def defined() -> Iterator[None]:
    """Turn a product that is not finite into a missing reading with its reason."""
    try:
        yield
    except NonFiniteProduct as error:
        raise Missing(UNDEFINED) from error


def check_engine(name: str, engine: str) -> None:
    """Raise ValueError if `engine` is not one of `ENGINES`."""
    if engine not in ENGINES:
        raise ValueError(
            f"expected engine to be one of {', '.join(map(repr, ENGINES))}, got {engine!r} "
            f"in options of {name!r}; leave it out for 'native'"
        )


def _check_eigenvalue_options(options: Any) -> None:
    if options.k < 1 or not options.tol > 0 or options.max_iterations < options.k:
        raise ValueError(
            f"expected k ≥ 1, tol > 0 and max_iterations ≥ k, got k={options.k}, tol={options.tol}, "
            f"max_iterations={options.max_iterations} in options of {options.name!r}; raise them"
        )


def _least_basis(num_wanted: int, block_size: int) -> int:
    return 2 * num_wanted + 8 + 2 * block_size


def _check_basis_options(options: HessianTop) -> None:
    if options.block_size < 1:
        raise ValueError(
            f"expected block_size ≥ 1, got {options.block_size} in options of {options.name!r}; leave it out for 1"
        )
    least = _least_basis(options.k, options.block_size)
    if options.max_basis is not None and options.max_basis < least:
        raise ValueError(
            f"expected max_basis ≥ 2 k + 8 + 2 block_size = {least} or None, got {options.max_basis} "
            f"in options of {options.name!r}; raise it"
        )
    try:
        torch.device(options.basis_device or "cpu")
    except RuntimeError as error:
        raise ValueError(
            f"expected basis_device to name a device of torch, got {options.basis_device!r} "
            f"in options of {options.name!r}; give 'cpu', or leave it out"
        ) from error


def _reading(
    found: Extremes, pairs: Eigenpairs, keys: tuple[str, ...], eigenvectors: bool, num_products: int
) -> Reading:
    k = len(keys)
    details: dict[str, Any] = {
        "residuals": pairs.residuals[:k],
        "converged": pairs.converged[:k],
        "iterations": found.num_products,
        "verified": found.verified,
        "basis_bytes": found.basis_bytes,
    }
    if eigenvectors and pairs.vectors is not None:
        details["eigenvectors"] = pairs.vectors[:, :k].cpu().numpy()
    converged = bool(pairs.converged[:k].all() and found.verified)
    values = np.ascontiguousarray(pairs.values[:k])
    return Reading(values, np.ascontiguousarray(pairs.errors[:k]), converged, keys, hvps=num_products,
                   details=details)  # fmt: skip


def _with_details(reading: Reading, **more: Any) -> Reading:
    return Reading(**{**vars(reading), "details": {**reading.details, **more}})
