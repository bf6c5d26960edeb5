"""The process beside training: it measures the snapshots that the trainer puts into shared memory.

It runs none of the user's script, ignores Ctrl-C, which is the trainer's, and ends when the trainer has ended.
Warm starts, calibrations of products and whatever diagnostics remember live here from snapshot to snapshot.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from trainvitals.diagnostics.base import Diagnostic
from trainvitals.probes.measure import take_readings
from trainvitals.probes.product_choice import products_of
from trainvitals.probes.side_job import Answer, Beginning, Job, heard, say
from trainvitals.probes.side_packing import unpacked
from trainvitals.probes.side_slot import Slot
from trainvitals.probes.subject import Subject

_LOOK_SECONDS = 0.5  # how often it sees whether the trainer is still there
_MEMORY_BYTES = 2**20  # what a diagnostic remembers goes back to the trainer, for the day this process dies
_FIRST_VICTIM = "500"  # of 1000: where memory runs out, the kernel is to end this process and not the trainer


@dataclass(frozen=True)
class Start:
    """What the process is told first."""

    parent: int  # the trainer's process id
    descriptors: tuple[int, ...]  # of the slots
    num_threads: int
    niceness: int
    device: str


@dataclass(frozen=True)
class Failure:
    """Why the process cannot go on, in words."""

    words: str


@dataclass(frozen=True)
class Freed:
    """A slot that may be written to again."""

    slot: int


def main(connection: Connection) -> None:
    """Serve the trainer at the other end until it says that it was the last job."""
    start: Start = heard(connection)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(start.parent,), daemon=True).start()
    _stand_back(start)
    try:
        _serve(connection, start)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the trainer is gone
        return
    except Exception as error:
        with contextlib.suppress(OSError):
            say(connection, Failure(f"{type(error).__name__}: {error}"))


def _serve(connection: Connection, start: Start) -> None:
    slots = [Slot(descriptor) for descriptor in start.descriptors]
    device, bench = torch.device(start.device), None
    while (found := heard(connection)) is not None:
        index, message = found
        body, tensors = slots[index].read(message, device)
        say(connection, Freed(index))
        content = unpacked(body, tensors)
        del tensors
        if isinstance(content, Beginning):
            bench = Bench(content)
            slots[index].close()
        else:
            assert bench is not None  # the beginning comes first
            say(connection, bench.measure(content, device))
        del content


class Bench:
    """The subject of a run, whose model is put in anew for each job.

    Args:
        beginning: what holds for the run.
    """

    def __init__(self, beginning: Beginning) -> None:
        self._beginning = beginning
        self._diagnostics = {d.name: d for d in beginning.diagnostics}
        self._subject: Subject | None = None
        self._errors: list[tuple[str, str]] = []
        self._warnings: list[str] = []

    def measure(self, job: Job, device: torch.device) -> Answer:
        """Return the readings of a job."""
        job.numerics.apply(device)
        subject, due = self._subject_of(job), [self._diagnostics[name] for name in job.names]
        self._errors, self._warnings = [], []
        readings = take_readings(subject, due, step=job.step, on_error=self._note_error)
        return Answer(job.step, job.time, readings, self._errors, self._warnings, _memories(due))

    def _subject_of(self, job: Job) -> Subject:
        given = self._beginning
        if self._subject is None:
            self._subject = Subject(
                job.model, job.loss, job.forward, given.train, given.heldout, mode=given.mode, seed=given.seed,
                initial_parameters=given.initial_parameters, heldout_sets=given.heldout_sets,
            )  # fmt: skip
            self._subject.products = products_of(self._subject, given.products, given.max_memory_bytes, patience=0)
            self._subject.products.warn = lambda words: self._warnings.append(words)
        self._subject.model, self._subject.loss, self._subject.forward = job.model, job.loss, job.forward
        self._subject.optimizer_seen = job.optimizer
        return self._subject

    def _note_error(self, name: str, error: Exception) -> None:
        self._errors.append((name, f"{type(error).__name__}: {error}"))


def _memories(diagnostics: Sequence[Diagnostic]) -> dict[str, bytes]:
    """Return what diagnostics remember, where it is small: eigenvectors are found again without."""
    found = {}
    for diagnostic in diagnostics:
        with contextlib.suppress(Exception):  # what cannot be pickled is not remembered
            if len(body := pickle.dumps(diagnostic)) <= _MEMORY_BYTES:
                found[diagnostic.name] = body
    return found


def _stand_back(start: Start) -> None:
    """Let training go first: in threads, in the scheduler, and where memory runs out."""
    torch.set_num_threads(start.num_threads)
    with contextlib.suppress(AttributeError, OSError):
        os.nice(start.niceness)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_VICTIM)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(0)
