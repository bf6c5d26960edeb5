"""Measure once, now: the code path that live runs and checkpoints share."""

from __future__ import annotations

import copy
import functools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot
from trainvitals.diagnostics.linalg.batch_operator import NotSymmetric
from trainvitals.diagnostics.linalg.products import FINITE_DIFFERENCES
from trainvitals.diagnostics.registry import select
from trainvitals.probes.bystander import bystander
from trainvitals.probes.meter import Meter
from trainvitals.probes.product_choice import products_of, widened
from trainvitals.probes.snapshot import ModelSnapshot, Progress
from trainvitals.probes.subject import PROBE_SAMPLES, Forward, Subject, make_subject
from trainvitals.schema import Reading

OnError = Callable[[str, Exception], None]  # (diagnostic's name, what it raised)


def measure(
    model: nn.Module,
    *,
    batch: Any,
    what: str | Iterable[str] | Mapping[str, Mapping[str, Any]] = "default",
    loss: Callable[[Any, Any], Tensor] | None = None,
    forward: Forward | None = None,
    heldout: Any = None,
    optimizer: Optimizer | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    mode: str = "eval",
    seed: int = 0,
    probe_samples: int = PROBE_SAMPLES,
    products: str = "auto",
    max_memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Reading]:
    """Measure diagnostics of a model once, and leave the model exactly as it was.

    Args:
        model: any module with trainable parameters.
        batch: the train probe: (inputs, targets), a list of such batches, or a loader to draw from.
        what: a preset ("light", "default", "full"), names and groups, or a mapping name → options.
        loss: loss(model(inputs), targets) → scalar mean. Leave out if `forward` is given.
        forward: forward(model, batch) → (outputs, mean or per-sample loss), for models called otherwise; for a
            mean over tokens it may return a third element, the number of tokens (see `trainvitals.watch`).
        heldout: a second probe batch, for the gap; or a mapping from names to batches, as {"clean": ..., "shifted":
            ...}: the one named "heldout", else the first, is the second probe, and `heldout.loss` has a row for each.
        optimizer: for the diagnostics that read its hyperparameters and state.
        options: options by metric name, as {"hessian.top": {"k": 3}}.
        mode: "eval" or "train": BatchNorm and dropout in the probe passes.
        seed: of random vectors (Hutchinson, Lanczos) and of dropout in "train" mode.
        probe_samples: samples drawn when `batch` or `heldout` is a loader.
        progress: called as progress(metric, done, total) during long measurements, such as "landscape".
        products: how Hessian products are made: "auto", "double backward", "forward over reverse" (these also
            with " in blocks"), or "finite differences".
        max_memory_bytes: most that the graphs of Hessian products may hold; the batch is cut, and graphs are built
            for every product, where they would take more. None: no bound.

    Returns:
        One reading per metric; those that do not exist for this model say why in `.missing`.

    Raises:
        ValueError: for unknown names or options, a batch that does not fit the model, a loss that differs
            between two passes over it, or batches whose weights in the mean loss cannot be told.

    Example:
        >>> import torch, trainvitals as tv
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x, y = torch.eye(2), torch.zeros(2, 1)
        >>> reading = tv.measure(model, batch=(x, y), loss=torch.nn.functional.mse_loss, what=["hessian.top"])
        >>> reading["hessian.top"].value.round(4).tolist()  # H = 2 XᵀX / N = I
        [1.0, 1.0]
    """
    diagnostics = select(what, options)
    subject = make_subject(
        model, loss=loss, forward=forward, train=batch, heldout=heldout, optimizer=optimizer,
        mode=mode, seed=seed, probe_samples=probe_samples, call="trainvitals.measure",
    )  # fmt: skip
    for message in subject.notices:
        warnings.warn(f"trainvitals: {message}", RuntimeWarning, stacklevel=2)
    subject.products = products_of(subject, products, max_memory_bytes)
    return take_readings(subject, diagnostics, progress=progress)


def take_readings(
    subject: Subject,
    diagnostics: Sequence[Diagnostic],
    *,
    step: int = 0,
    trajectory: Callable[[], Any] | None = None,
    on_error: OnError | None = None,
    progress: Progress | None = None,
    meter: Meter | None = None,
) -> dict[str, Reading]:
    """Measure everything that is due at a step, in one stay at the model.

    A diagnostic that is undefined here gives readings with the reason. One that fails gives readings that
    say so, and `on_error` hears of it; the others go on. `meter` is told whose time it was.
    """
    readings: dict[str, Reading] = {}
    meter = meter or Meter()

    def snapshot_of(subject: Subject) -> ModelSnapshot:
        due = {d.name: d for d in diagnostics}
        return ModelSnapshot(subject, due, step=step, trajectory=trajectory, progress=progress, meter=meter)

    lends = any(_needs_a_pass(type(d)) for d in diagnostics)
    with lent(subject) if lends else _looked_at(subject), ExitStack() as released:
        snapshot, dtype = snapshot_of(subject), subject.dtype
        released.callback(snapshot.release)
        twin: ModelSnapshot | None = None  # with twice the step of finite differences: what that changes is an error
        for diagnostic in diagnostics:
            with meter.of(diagnostic.name):
                found = _measured(diagnostic, snapshot, subject, on_error, dtype)
                if diagnostic.needs & Needs.HVP and subject.products.way == FINITE_DIFFERENCES:
                    if twin is None:
                        twin = snapshot_of(replace(subject, products=subject.products.with_step(2.0)))
                        released.callback(twin.release)
                    found = widened(found, _measured(copy.deepcopy(diagnostic), twin, subject, None, dtype))
            readings.update(found)
    return readings


@contextmanager
def lent(subject: Subject) -> Iterator[None]:
    """Take the model for a while; diagnostics make their own tensors on the CPU, whatever the user's default is."""
    default = torch.get_default_device()
    subject.default_device = default if default.type != "cpu" else None
    on_cpu = torch.device("cpu") if subject.default_device else nullcontext()
    with bystander(subject.model, mode=subject.mode, beside=subject.beside), on_cpu:
        yield


@contextmanager
def _looked_at(subject: Subject) -> Iterator[None]:
    """Read weights and optimiser as they stand: without a pass there is nothing to lend, or to put back."""
    subject.is_lent = False
    try:
        is_plain = not (torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu"))
        if is_plain and torch.get_default_device().type == "cpu":
            yield
        else:
            with torch.inference_mode(False), torch.autocast("cpu", enabled=False), torch.device("cpu"):
                yield
    finally:
        subject.is_lent = True


def _measured(
    diagnostic: Diagnostic, snapshot: ModelSnapshot, subject: Subject, on_error: OnError | None, dtype: str
) -> dict[str, Reading]:
    started, hvps, passes = time.perf_counter(), snapshot.num_hvps, dict(subject.num_passes)
    try:
        found = _found(diagnostic, snapshot)
    except Missing as reason:
        found = Reading.absent(str(reason))
    except Exception as error:
        found = _failed(diagnostic.name, error, on_error)
    provenance = {
        "step": snapshot.step,
        "batch": subject.train.hash,
        "mode": subject.mode,
        "dtype": dtype,
        "forward_passes": subject.num_passes["forward"] - passes["forward"],
        "backward_passes": subject.num_passes["backward"] - passes["backward"],
    }
    names = metric_names(type(diagnostic))
    parts = {
        name: found if isinstance(found, Reading) else found[name.removeprefix(f"{diagnostic.name}.")] for name in names
    }
    seconds = (time.perf_counter() - started) / len(parts)
    num_hvps = snapshot.num_hvps - hvps
    return {
        name: replace(
            part,
            value=_plain(part.value),
            error=_plain(part.error),
            definition=f"{name} v{diagnostic.version}",
            hvps=part.hvps or (0 if "shared_with" in part.details else num_hvps),
            seconds=seconds,
            details=_with_products(part, diagnostic, snapshot),
            provenance=provenance,
        )
        for name, part in parts.items()
    }


@functools.cache
def _needs_a_pass(cls: type[Diagnostic]) -> bool:
    return bool(cls.needs & ~(Needs.PARAMETERS | Needs.OPTIMIZER_STATE | Needs.TRAJECTORY))


@functools.cache
def metric_names(cls: type[Diagnostic]) -> tuple[str, ...]:
    """Return the full names of what a diagnostic measures."""
    return tuple(cls.descriptions())


def _found(diagnostic: Diagnostic, snapshot: ModelSnapshot) -> Reading | Mapping[str, Reading]:
    """Measure, and once more if products turned out wrong on the way and are made otherwise now."""
    lent = cast(Snapshot, snapshot)  # checkers take a cached_property for no property
    try:
        return diagnostic.measure(lent)
    except NotSymmetric:
        if snapshot.products.way != FINITE_DIFFERENCES:
            raise
        snapshot.forget()
        return diagnostic.measure(lent)


def _with_products(part: Reading, diagnostic: Diagnostic, snapshot: ModelSnapshot) -> Mapping[str, Any]:
    """Return a reading's details with how its products were made; another engine makes its own."""
    if not diagnostic.needs & Needs.HVP or part.value is None or "engine" in part.details:
        return part.details
    return {**part.details, **snapshot.products.words()}


def _failed(name: str, error: Exception, on_error: OnError | None) -> Reading:
    if on_error is not None:
        on_error(name, error)
    return Reading.absent(f"the measurement failed with {type(error).__name__}: {error}")


def _plain(value: Any) -> Any:
    """Return tensors and NumPy scalars as what a Reading promises: a float or an array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (np.ndarray, list, tuple)):
        array = np.asarray(value, dtype=np.float64)
        return float(array) if array.ndim == 0 else array
    return None if value is None else float(value)
