"""A loss landscape in the background: on a copy of the model, in a process of its own, while training goes on.

A thread would not do: probe passes seed torch's generator and choose attention kernels for the whole process,
and training beside them would see it. The process is forked where that is possible, so models and losses
that cannot be pickled (lambdas, classes of a notebook) work; it uses one thread and the CPU.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from trainvitals.diagnostics.landscape import Landscape
from trainvitals.probes.bystander import unwrapped
from trainvitals.probes.measure import measure
from trainvitals.schema import Reading, Record, Status
from trainvitals.store.writer import RunWriter

NAME = Landscape.name
_POLL_SECONDS = 0.1


def landscape_in_background(
    model: nn.Module,
    *,
    batch: Any,
    loss: Callable[[Any, Any], Tensor] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    options: Mapping[str, Any] | None = None,
    mode: str = "eval",
    seed: int = 0,
    store: str | os.PathLike[str] | None = None,
    name: str = NAME,
    step: int = 0,
) -> LandscapeJob:
    """Start a landscape of the model as it is now, and return at once.

    The model is copied before this returns, to the CPU: what training does to it afterwards is not seen, and
    training sees nothing of this. The numbers are those of `trainvitals.measure(..., what=["landscape"])`.

    Args:
        model: any module with trainable parameters, on any device.
        batch: the probe, as `measure` takes it. Its tensors are copied to the CPU.
        loss: as in `measure`.
        forward: as in `measure`.
        options: of the landscape: {"dimensions": 2, "directions": "eigenvectors"}.
        mode: "eval" or "train": BatchNorm and dropout.
        seed: of random directions.
        store: a folder; the landscape is written there as a run of its own when it is ready.
        name: of that run.
        step: of its point, the optimiser's steps so far.

    Raises:
        ValueError: for unknown options, or a model that cannot be copied or, where the process cannot be
            forked (CUDA in use, Windows), not be pickled.

    Example:
        >>> model, loss = torch.nn.Linear(2, 1), torch.nn.functional.mse_loss
        >>> batch = (torch.eye(2), torch.zeros(2, 1))
        >>> job = landscape_in_background(model, loss=loss, batch=batch, options={"num_points": 5})
        >>> job.result().value.shape  # waits for it
        (5,)
    """
    Landscape.configured(options or {})
    try:
        twin = copy.deepcopy(unwrapped(model)).cpu()
    except Exception as error:
        raise ValueError(
            f"expected a model that can be copied, got {type(error).__name__}: {error} in landscape_in_background; "
            "use trainvitals.measure(..., what=['landscape']), which borrows the model itself"
        ) from error
    arguments = {
        "batch": tree_map(_on_cpu, batch), "loss": loss, "forward": forward, "mode": mode, "seed": seed,
        "what": {NAME: dict(options or {})},
    }  # fmt: skip
    return LandscapeJob(twin, arguments, None if store is None else (os.fspath(store), name, step))


class LandscapeJob:
    """A landscape that is being computed. Made by `landscape_in_background`."""

    def __init__(self, model: nn.Module, arguments: dict[str, Any], target: tuple[str, str, int] | None) -> None:
        can_fork = "fork" in multiprocessing.get_all_start_methods() and not torch.cuda.is_initialized()
        context = multiprocessing.get_context("fork" if can_fork else "spawn")
        self._counts = context.Array("q", 2)  # points done, points in all
        self._answers, answer = context.Pipe(duplex=False)
        self._process = context.Process(  # pyright: ignore[reportAttributeAccessIssue]  # of either context
            target=_work, args=(answer, self._counts, model, arguments, target), name="trainvitals landscape",
            daemon=True,
        )  # fmt: skip
        self._reading: Reading | None = None
        try:
            with warnings.catch_warnings():  # Python warns of forks beside threads; the child uses no lock of theirs
                warnings.simplefilter("ignore", DeprecationWarning)
                self._process.start()
        except Exception as error:
            raise ValueError(
                f"expected a model, loss and batch that can be pickled, got {type(error).__name__}: {error} in "
                "landscape_in_background; define them at the top of a module, or use trainvitals.measure"
            ) from error
        answer.close()

    @property
    def progress(self) -> float:
        """The share of grid points that are done, from 0 to 1; 0 while directions are computed."""
        done, total = self._counts
        return done / total if total else 0.0

    @property
    def is_done(self) -> bool:
        """Whether `result` will not wait."""
        return self._reading is not None or not self._process.is_alive() or self._answers.poll()

    def result(
        self, timeout: float | None = None, progress: Callable[[str, int, int], None] | None = None
    ) -> Reading:
        """Wait for the landscape and return it.

        Args:
            timeout: seconds to wait at most.
            progress: called as progress("landscape", done, total) while waiting, in this thread.

        Raises:
            TimeoutError: if it is not ready by then; it goes on.
            RuntimeError: if the measurement failed, or its process ended without a word (killed, cancelled).
        """
        end, told = None if timeout is None else time.monotonic() + timeout, (0, 0)
        while self._reading is None:
            has_answer = self._answers.poll(_POLL_SECONDS)
            if progress is not None and (counts := (int(self._counts[0]), int(self._counts[1]))) != told:
                progress(NAME, *counts)
                told = counts
            if has_answer:
                self._reading = self._received()
            elif end is not None and time.monotonic() >= end:
                raise TimeoutError(
                    f"expected the landscape within {timeout} s, got {100 * self.progress:.0f} % of it in "
                    "LandscapeJob.result; wait longer, or ask for fewer points"
                )
        return self._reading

    def cancel(self) -> None:
        """End the process. A landscape that is ready stays."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()

    def _received(self) -> Reading:
        try:
            answer = self._answers.recv()
        except EOFError:
            self._process.join()
            answer = f"its process ended with exit code {self._process.exitcode}"
        if isinstance(answer, str):
            raise RuntimeError(
                f"expected a landscape, got none: {answer}, in LandscapeJob.result; "
                "trainvitals.measure(..., what=['landscape']) in this process shows where it fails"
            )
        self._process.join()
        return answer


def _work(
    answer: Connection, counts: Any, model: nn.Module, arguments: dict[str, Any], target: tuple[str, str, int] | None
) -> None:
    """Measure in the child process and send the reading, or in words why there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for training; the parent's end is this one's
    torch.set_num_threads(1)  # threads of before the fork do not exist here

    def progress(name: str, done: int, total: int) -> None:
        counts[0], counts[1] = done, total

    try:
        reading = measure(model, **arguments, progress=progress)[NAME]
        if target is not None:
            _record(reading, model, target)
        answer.send(reading)
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")


def _record(reading: Reading, model: nn.Module, target: tuple[str, str, int]) -> None:
    """Write the landscape as a run of its own."""
    folder, name, step = target
    meta = {"model": {"class": type(model).__name__, "num_parameters": sum(p.numel() for p in model.parameters())}}
    writer = RunWriter.create(folder, name, meta, Landscape.descriptions())
    writer.append(Record(step, time.time(), {NAME: reading}))
    writer.close(Status.FINISHED)


def _on_cpu(leaf: Any) -> Any:
    return leaf.detach().cpu().clone() if isinstance(leaf, Tensor) else leaf
