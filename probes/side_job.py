"""What the trainer sends to the process beside it: what holds for the run, once, and a job for each snapshot."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from trainvitals.diagnostics.base import Diagnostic, Needs, OptimizerView
from trainvitals.probes.optimizer_view import optimizer_view
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.subject import Forward, Subject
from trainvitals.schema import Reading


@dataclass(frozen=True)
class Beginning:
    """What holds for the whole run."""

    diagnostics: tuple[Diagnostic, ...]
    train: ProbeBatch
    heldout: ProbeBatch | None
    heldout_sets: Mapping[str, ProbeBatch]
    initial_parameters: Mapping[str, Tensor] | None
    mode: str
    seed: int
    products: str  # as asked for
    max_memory_bytes: int | None


@dataclass(frozen=True)
class Numerics:
    """Switches of torch on which numbers depend."""

    default_dtype: torch.dtype
    default_device: str
    matmul_precision: str
    is_deterministic: bool
    only_warns: bool

    @classmethod
    def now(cls) -> Numerics:
        """Return them as they stand in this process."""
        return cls(
            torch.get_default_dtype(), str(torch.get_default_device()), torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        )  # fmt: skip

    def apply(self, device: torch.device) -> None:
        """Set them in this process, which computes on `device` what the trainer has on an accelerator."""
        torch.set_default_dtype(self.default_dtype)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.use_deterministic_algorithms(self.is_deterministic, warn_only=self.only_warns)
        wanted = torch.device("cpu") if torch.device(self.default_device).type == "cpu" else device
        if torch.get_default_device() != wanted:  # which costs every operation something, once it was set
            torch.set_default_device(wanted)


@dataclass(frozen=True)
class Job:
    """One snapshot, and what is to be measured of it."""

    step: int
    time: float  # seconds since the epoch
    names: tuple[str, ...]
    model: nn.Module
    loss: Callable[[Any, Any], Tensor] | None
    forward: Forward | None
    optimizer: OptimizerView | None
    numerics: Numerics


@dataclass(frozen=True)
class Answer:
    """What came of a job."""

    step: int
    time: float
    readings: Mapping[str, Reading]
    errors: Sequence[tuple[str, str]] = ()  # (diagnostic, what it raised in words)
    warnings: Sequence[str] = ()
    memories: Mapping[str, bytes] = field(default_factory=dict)  # small diagnostics with all that they remember


def beginning_of(subject: Subject, diagnostics: Sequence[Diagnostic]) -> Beginning:
    """Return what holds for a run of this subject."""
    return Beginning(
        tuple(diagnostics), subject.train, subject.heldout, subject.heldout_sets, subject.initial_parameters,
        subject.mode, subject.seed, subject.products.requested, subject.products.max_memory_bytes,
    )  # fmt: skip


def job_of(subject: Subject, diagnostics: Sequence[Diagnostic], step: int, time: float) -> Job:
    """Return the job to measure these diagnostics of a subject as it stands; its tensors are the user's own."""
    needs = Needs.NOTHING
    for diagnostic in diagnostics:
        needs |= diagnostic.needs
    view = None
    if needs & Needs.OPTIMIZER_STATE and subject.optimizer is not None:
        view = optimizer_view(subject.optimizer, subject.model)
        view = replace(view, state={name: dict(state) for name, state in view.state.items()})
    names = tuple(d.name for d in diagnostics)
    return Job(step, time, names, subject.model, subject.loss, subject.forward, view, Numerics.now())


def say(connection: Connection, message: Any) -> None:
    """Send a message: its tensors by their numbers, which torch would make `connection.send` share as files."""
    connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def heard(connection: Connection) -> Any:
    """Return the next message.

    Raises:
        EOFError: if the other process has ended.
    """
    return pickle.loads(connection.recv_bytes())
