"""What is measured beside training: sent when it is due, dropped when there is no room, inline when all else fails."""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from trainvitals.diagnostics.base import Diagnostic
from trainvitals.probes.side import Side, offloaded
from trainvitals.probes.side_job import Answer
from trainvitals.probes.side_link import SideLink
from trainvitals.probes.subject import Subject
from trainvitals.schema import Description, Record

_HURRIED_SECONDS = 2.0  # at the end of a run that was interrupted or crashed
DESCRIPTIONS = {
    "probe.dropped": Description(
        name="probe.dropped", title="Measurements not taken", question="Is anything wrong?", unit="1",
        summary="Measurements since the run began that were due while the process beside training was busy.",
    ),
}  # fmt: skip


@dataclass
class Sent:
    """What became of the diagnostics that were due at a step."""

    here: list[str]  # to be measured in the trainer
    there: list[str] = field(default_factory=list)  # measured beside training
    seconds: float = 0.0  # that the copy took


class SideMeasurements:
    """The diagnostics of a run that are measured beside training.

    Args:
        side: how.
        subject: what is measured.
        diagnostics: all of the run, by name; where measuring goes on inline, they remember what they did there.
        record: is handed what was measured, from another thread.
        warn: is told (subject, words) once of what went wrong, in the trainer's thread.
    """

    def __init__(
        self,
        side: Side,
        subject: Subject,
        diagnostics: dict[str, Diagnostic],
        record: Callable[[Record], None],
        warn: Callable[[str, str], None],
    ) -> None:
        self.num_dropped = 0
        self._diagnostics = diagnostics
        self._names = offloaded(diagnostics.values())
        self._record = record
        self._warn = warn
        self._late: set[str] = set()  # was due while there was no room, and can be made up for
        self._unsaid: deque[tuple[str, str]] = deque()
        self._memories: dict[str, bytes] = {}
        self._unanswered: deque[tuple[int, int]] = deque()  # what was dropped by then, and what each snapshot is for
        self._close_seconds = side.close_seconds
        self._pid = os.getpid()
        self._link = self._linked(side, subject) if self._names else None

    def send(self, due: list[str], step: int, *, paced: Iterable[str] = ()) -> Sent:
        """Send what can be measured there; what is `paced` and finds no room is sent as soon as there is some."""
        self._say()
        if self._link is not None and self._link.failure is not None:
            self._go_inline(self._link.failure, step)
        if self._link is None:
            return Sent(due)
        here, there = [n for n in due if n not in self._names], [n for n in due if n in self._names]
        if not self._link.has_room:
            self._drop(there, frozenset(paced))
            return Sent(here)
        there += sorted(self._late - set(there))
        return self._sent(here, there, step) if there else Sent(here)

    def close(self, step: int, *, in_peace: bool) -> None:
        """Wait for what is being measured, and say what is lost."""
        link, self._link = self._link, None
        if link is None or os.getpid() != self._pid:  # a forked child's copy leaves the process to its parent
            return
        lost = link.close(self._close_seconds if in_peace else min(self._close_seconds, _HURRIED_SECONDS))
        self._count_lost(step)
        if link.failure is not None:
            self._warn(
                "side", f"expected the process beside training to answer to the end, got {link.failure} by step "
                f"{step}; {_lost(lost)}: see what it wrote to the terminal"
            )  # fmt: skip
        elif lost:
            self._warn(
                "side", f"expected the process beside training to be done {self._close_seconds:g} s after the end, "
                f"got {lost} snapshots not measured at step {step}; allow more with "
                "where=trainvitals.Side(close_seconds=...)"
            )  # fmt: skip

    def _linked(self, side: Side, subject: Subject) -> SideLink | None:
        there = [d for d in self._diagnostics.values() if d.name in self._names]
        try:
            return SideLink(side, subject, there, self._hear)
        except Exception as error:
            self._warn(
                "side", "expected a model, loss and forward that can be sent to another process, got "
                f"{_words(error)} in trainvitals.watch(where='side'); everything is measured in the training process "
                "instead: define classes and functions at the top of a module, or install the package cloudpickle"
            )  # fmt: skip
            return None

    def _sent(self, here: list[str], there: list[str], step: int) -> Sent:
        assert self._link is not None
        started = time.perf_counter()
        self._unanswered.append((self.num_dropped, len(there)))
        try:
            self._link.send([self._diagnostics[name] for name in there], step)
        except Exception as error:
            self._go_inline(f"{_words(error)} when a snapshot was to be sent", step)
            return Sent(here + there)
        self._late.clear()
        return Sent(here, there, time.perf_counter() - started)

    def _drop(self, names: list[str], paced: frozenset[str]) -> None:
        made_up_for = (set(names) & paced) - self._late
        self.num_dropped += len(names) - len(made_up_for)
        self._late |= made_up_for

    def _go_inline(self, failure: str, step: int) -> None:
        assert self._link is not None
        link, self._link = self._link, None
        lost = link.close(0.0)
        self._count_lost(step)
        self._late.clear()
        for name, body in self._memories.items():
            self._diagnostics[name] = pickle.loads(body)
        self._warn(
            "side", f"expected the process beside training to go on measuring, got {failure} at step {step}; "
            f"{_lost(lost)}, and measuring goes on in the training process, within the budget if there is one: leave "
            "out where= to have it there from the start"
        )  # fmt: skip

    def _count_lost(self, step: int) -> None:
        """Record in the end all that was not taken, and say what is still to be said."""
        self.num_dropped += sum(num_names for _, num_names in self._unanswered) + len(self._late)
        self._unanswered.clear()
        self._record(Record(step, time.time(), scalars={"probe.dropped": float(self.num_dropped)}))
        self._say()

    def _say(self) -> None:
        while self._unsaid:
            self._warn(*self._unsaid.popleft())

    def _hear(self, answer: Answer) -> None:
        """Take an answer, in the thread that hears."""
        self._memories.update(answer.memories)
        dropped = {"probe.dropped": float(self._unanswered.popleft()[0])}
        self._record(Record(answer.step, answer.time, answer.readings, dropped))
        for name, words in answer.errors:
            self._unsaid.append((
                name, f"expected a reading of {name!r}, got {words} at step {answer.step}; training goes on without "
                f"it: leave {name!r} out of probes= to silence this",
            ))  # fmt: skip
        self._unsaid.extend((words, words) for words in answer.warnings)


def _lost(count: int) -> str:
    return f"{count} snapshots were not measured" if count else "no snapshot was lost"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
