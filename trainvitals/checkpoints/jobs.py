"""The units of work: what runs in a worker, and what comes back.

Diagnostics that keep nothing between measurements are measured at any checkpoint in any order. Those that remember
(the best loss so far, the eigenvectors of the last measurement) see the checkpoints one after the other: they
travel with their memory from job to job, and while one checkpoint is looked at by them, others are measured beside.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from trainvitals.checkpoints.bench import Bench, bench_of
from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.plan import SealedPlan
from trainvitals.diagnostics.base import Diagnostic, Needs
from trainvitals.schema import Reading

_ONE_AT_A_TIME = threading.Lock()  # a worker with several threads has one model


class Work(Protocol):
    """What a job does at a bench."""

    def __call__(self, bench: Bench) -> Any:
        """Return the result, small enough to travel."""
        ...


@dataclass(frozen=True)
class Answer:
    """What came of a job."""

    result: Any = None
    problem: str | None = None
    note: str | None = None
    seconds: float = 0.0


def run(plan: SealedPlan, work: Work) -> Answer:
    """Do a job, in whatever process this is. Called by executors."""
    with _ONE_AT_A_TIME, _one_thread():
        started = time.perf_counter()
        bench = bench_of(plan)
        bench.note = None
        try:
            return Answer(work(bench), None, bench.note, time.perf_counter() - started)
        except CheckpointError as error:
            return Answer(None, str(error), None, time.perf_counter() - started)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the numbers are then the same whatever executor carries the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Measurement:
    """Measure diagnostics at one checkpoint. Those that remember are given; the others are the plan's."""

    checkpoint: Checkpoint
    names: tuple[str, ...] = ()
    remembering: tuple[Diagnostic, ...] = ()

    def __call__(self, bench: Bench) -> tuple[dict[str, Reading], tuple[Diagnostic, ...]]:
        """Return the readings, and the diagnostics with what they remember now."""
        wanted = set(self.names)
        diagnostics = [*self.remembering, *(d for d in bench.plan.diagnostics if d.name in wanted)]
        return bench.readings(self.checkpoint, diagnostics), self.remembering


@dataclass(frozen=True)
class Check:
    """See whether a checkpoint can be used, without measuring."""

    checkpoint: Checkpoint

    def __call__(self, bench: Bench) -> tuple[dict[str, Reading], tuple[Diagnostic, ...]]:
        """Return nothing, or raise what is wrong."""
        bench.weights(self.checkpoint)
        return {}, ()


@dataclass
class Job:
    """A piece of work in line, and what happens with its result."""

    label: str
    work: Callable[[], Work]  # made when it is sent: by then its lane knows what is remembered
    done: Callable[[Answer], None]
    num_tries: int = 0


@dataclass
class Lane:
    """Jobs in line: one after the other, or side by side."""

    jobs: deque[Job]
    is_ordered: bool = False
    num_running: int = 0
    after: Sequence[Lane] = field(default=(), repr=False)  # lanes that must have ended before this one begins
    fill: Callable[[], Iterable[Job]] | None = None  # gives the jobs when it begins, where they rest on those before

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do."""
        return not self.jobs and not self.num_running and self.fill is None

    def next(self) -> Job | None:
        """Return the next job, if one can be begun now."""
        if not all(lane.has_ended for lane in self.after):
            return None
        if self.fill is not None:
            fill, self.fill = self.fill, None
            self.jobs.extend(fill())
        is_free = self.num_running == 0 if self.is_ordered else True
        return self.jobs.popleft() if self.jobs and is_free else None


def remembers(diagnostic: Diagnostic) -> bool:
    """Tell whether a measurement depends on the ones before it.

    A diagnostic keeps its memory in fields with `init=False`; one that has such fields and does not use them says
    so by an attribute `remembers`. Steps of a trajectory exist in live runs only, so those never do.
    """
    if diagnostic.needs & Needs.TRAJECTORY:
        return False
    has_memory = dataclasses.is_dataclass(diagnostic) and any(not f.init for f in dataclasses.fields(diagnostic))
    return bool(getattr(diagnostic, "remembers", has_memory))


def lines_of(diagnostics: Iterable[Diagnostic], num_workers: int) -> tuple[list[Diagnostic], list[list[Diagnostic]]]:
    """Return the diagnostics that go side by side, and groups of those that go in order.

    With one worker everything is in order anyway: one group, so that each checkpoint is read once. With two, those
    that remember share one line, for each line reads every checkpoint and passes through the model anew. With more,
    the dear ones that remember (Hessian products) have a line of their own, lest the cheap ones wait for them.
    """
    chosen = list(diagnostics)
    if num_workers == 1:
        return [], [chosen] if chosen else []
    ordered, beside = [d for d in chosen if remembers(d)], [d for d in chosen if not remembers(d)]
    if num_workers == 2:
        return beside, [ordered] if ordered else []
    dear = [d for d in ordered if d.needs & Needs.HVP]
    cheap = [d for d in ordered if not d.needs & Needs.HVP]
    return beside, [group for group in (dear, cheap) if group]
