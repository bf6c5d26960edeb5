"""The run that an analysis writes: what is in it already, what came of each job, and how it ends.

What is done is told by the points themselves: a metric that has a point, or a reason for having none, at the step of
a checkpoint is not measured there again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from trainvitals.checkpoints import memory
from trainvitals.checkpoints.errors import CheckpointError
from trainvitals.checkpoints.finding import Found, Problem
from trainvitals.diagnostics.base import Diagnostic
from trainvitals.run import Run, list_runs
from trainvitals.schema import Description, Event, Reading, Record, Status
from trainvitals.store.writer import RunWriter

FLUSH_SECONDS = 60.0
NAME = "analyze"


class Ledger:
    """Writes the run of one analysis. Make it with `open`; a context manager that closes the run."""

    def __init__(
        self, writer: RunWriter, problems: Sequence[Problem], done: Mapping[str, frozenset[int]], told: Iterable[Event]
    ) -> None:
        self._writer = writer
        self._done = done
        self._memory_path = Path(writer.path).with_suffix(".memory")
        self._problems = list(problems)
        self._told = {event.message for event in told}
        self._refused = {event.step for event in told if event.kind == "checkpoint"}
        self._num_done = self._num_jobs = self._last_step = 0
        self._progress: Callable[[str, int, int], None] | None = None
        self._num_measured = sum(map(len, done.values()))
        self._lines: list[tuple[list[Diagnostic], dict[str, int]]] = []

    @classmethod
    def open(
        cls, found: Found, meta: Mapping[str, Any], descriptions: Mapping[str, Description],
        identity: Mapping[str, Any], store: str | os.PathLike[str], name: str, *, resume: bool,
    ) -> Ledger:  # fmt: skip
        """Begin a run, or go on with the one of the same name and identity.

        Args:
            found: the checkpoints, and those that are left out.
            meta: of the run.
            descriptions: of the metrics to come.
            identity: what must be the same for two analyses to be parts of one.
            store: the folder of runs.
            name: of the run.
            resume: whether to look for one to go on with.

        Raises:
            CheckpointError: if another process is writing that run.
        """
        fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
        path = _unfinished(store, name, fingerprint) if resume else None
        if path is None:
            meta = {**meta, "analysis": {"fingerprint": fingerprint, "unit": found.unit}}
            return cls(RunWriter.create(store, name, meta, descriptions), found.problems, {}, ())
        with Run(path) as run:
            done = {metric: _steps(run, metric) for metric in run.names()}
            told = [Event(*row) for row in run.events().itertuples(index=False, name=None)]
        return cls(RunWriter.resume(path, descriptions), found.problems, done, told)

    @property
    def path(self) -> Path:
        """The run's file."""
        return Path(self._writer.path)

    def begin(self, num_jobs: int, progress: Callable[[str, int, int], None] | None) -> None:
        """Say what is to come."""
        self._num_jobs, self._progress = num_jobs, progress
        for problem in self._problems:
            self._tell("checkpoint", problem.reason, problem.step)
        if progress is not None:
            progress(NAME, 0, num_jobs)

    def is_done(self, metric: str, step: int) -> bool:
        """Whether a metric was measured at a checkpoint by an earlier part of this analysis."""
        return step in self._done.get(metric, ())

    def is_refused(self, step: int) -> bool:
        """Whether the checkpoint could not be used, now or in an earlier part of this analysis."""
        return step in self._refused

    def remembered(self, diagnostics: Sequence[Diagnostic]) -> dict[str, int]:
        """Give diagnostics what they remembered when the analysis stopped; return by name the step they had seen."""
        positions = memory.restore(self._memory_path, diagnostics)
        self._lines.append((list(diagnostics), dict(positions)))
        return positions

    def remember(self, line: int, diagnostics: Sequence[Diagnostic], step: int) -> None:
        """Keep what the diagnostics of a line remember after a checkpoint, once its points are on the disk."""
        self._lines[line] = (list(diagnostics), {d.name: step for d in diagnostics})
        self._writer.flush(FLUSH_SECONDS)
        everything = [d for members, positions in self._lines for d in members if d.name in positions]
        positions = {name: step for _, part in self._lines for name, step in part.items()}
        memory.save(self._memory_path, positions, everything)

    def write(self, step: int, readings: Mapping[str, Reading]) -> None:
        """Record readings at a checkpoint's step, those that are there already aside."""
        new = {name: reading for name, reading in readings.items() if not self.is_done(name, step)}
        self._num_measured += len(new)
        self._last_step = max(self._last_step, step)
        self._writer.progress(self._last_step)
        if new:
            self._writer.append(Record(step, time.time(), new))

    def keep(self, step: int, readings: Mapping[str, Reading], descriptions: Mapping[str, Description]) -> None:
        """Record what goes with the run once, and is no measurement."""
        new = {name: reading for name, reading in readings.items() if name not in self._done}
        if new:
            self._writer.describe({name: words for name, words in descriptions.items() if name in new})
            self._writer.append(Record(step, time.time(), new))

    def leave_out(self, reason: str, step: int, *, is_of_checkpoint: bool = True) -> None:
        """Note a checkpoint that cannot be used, or a part of a path's metric that cannot be had."""
        self._problems.append(Problem("", reason, step))
        if is_of_checkpoint:
            self._refused.add(step)
        self._tell("checkpoint" if is_of_checkpoint else "warning", reason, step)

    def note(self, text: str, step: int) -> None:
        """Note something that holds for many checkpoints, once."""
        self._tell("warning", text, step)

    def add_jobs(self, num: int) -> None:
        """Count jobs that were not known at the beginning."""
        self._num_jobs += num

    def advance(self) -> None:
        """Count a job that has ended."""
        self._num_done += 1
        if self._progress is not None:
            self._progress(NAME, self._num_done, self._num_jobs)

    def _tell(self, kind: str, message: str, step: int) -> None:
        if message not in self._told:
            self._told.add(message)
            self._writer.event(Event(step, time.time(), kind, message))

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._num_measured:
            reason = self._problems[0].reason if self._problems else "nothing was measured"
            self._writer.close(Status.CRASHED, reason)
            raise CheckpointError(reason)
        if error is None:
            self._writer.event(Event(self._last_step, time.time(), "finished", ""))
            self._writer.close(Status.FINISHED)
            self._memory_path.unlink(missing_ok=True)
        elif isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._writer.event(Event(self._last_step, time.time(), "interrupted", f"stopped by {type(error).__name__}"))
            self._writer.close(Status.FINISHED, "stopped; the same call goes on")
        else:
            self._writer.close(Status.CRASHED, f"{type(error).__name__}: {error}")


def _unfinished(store: str | os.PathLike[str], name: str, fingerprint: str) -> Path | None:
    """Return the newest run of that name that is a part of the same analysis."""
    for summary in list_runs(store):
        if summary.problem is not None or summary.name != name:
            continue
        with Run(summary.path) as run:
            if run.meta.get("analysis", {}).get("fingerprint") != fingerprint:
                continue
            if run.status in (Status.LIVE, Status.STALLED):
                raise CheckpointError(
                    f"expected an analysis that nobody else is at, got the run {run.id!r}, which another process is "
                    "writing, in trainvitals.analyze; wait for it, give another name=, or pass resume=False"
                )
            return Path(summary.path)
    return None


def _steps(run: Run, metric: str) -> frozenset[int]:
    return frozenset({*map(int, run.series(metric)["step"]), *map(int, run.missing(metric)["step"])})


def first_metrics(diagnostics: Iterable[Diagnostic]) -> dict[str, str]:
    """Return one metric of each diagnostic by the diagnostic's name: they are recorded together."""
    return {d.name: next(iter(d.descriptions())) for d in diagnostics}
