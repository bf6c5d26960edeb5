"""The jobs that measure diagnostics: which checkpoints by which diagnostics, in which order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from trainvitals.checkpoints.finding import Checkpoint, Found
from trainvitals.checkpoints.jobs import Answer, Job, Lane, Measurement, lines_of, remembers
from trainvitals.checkpoints.ledger import Ledger, first_metrics
from trainvitals.diagnostics.base import Diagnostic


def lanes_of_diagnostics(
    ledger: Ledger, found: Found, diagnostics: Sequence[Diagnostic], num_workers: int
) -> list[Lane]:
    """Return lanes that measure what is not done yet: one side by side, and those in order."""
    beside, lines = lines_of(diagnostics, num_workers)
    lanes = [_in_order(ledger, found, line, index) for index, line in enumerate(lines)]
    if beside:
        lanes.append(_side_by_side(ledger, found, beside))
    return [lane for lane in lanes if lane.jobs]


def _side_by_side(ledger: Ledger, found: Found, diagnostics: Sequence[Diagnostic]) -> Lane:
    metrics, jobs = first_metrics(diagnostics), deque[Job]()
    for checkpoint in found.checkpoints:
        names = tuple(name for name, metric in metrics.items() if not ledger.is_done(metric, checkpoint.step))
        if names:
            work = Measurement(checkpoint, names)
            jobs.append(Job(checkpoint.label, lambda work=work: work, _recorder(ledger, checkpoint)))
    return Lane(jobs)


def _in_order(ledger: Ledger, found: Found, diagnostics: Sequence[Diagnostic], line: int) -> Lane:
    """Return a lane whose jobs hand on what the diagnostics remember.

    Memory that was lost is won back by measuring again from the first checkpoint; nothing is written twice.
    """
    metrics = first_metrics(diagnostics)
    positions = ledger.remembered(diagnostics)
    kept: list[Sequence[Diagnostic]] = [tuple(diagnostics)]

    def work(checkpoint: Checkpoint) -> Measurement:
        return Measurement(checkpoint, remembering=tuple(kept[0]))

    def done(answer: Answer, checkpoint: Checkpoint) -> None:
        _recorder(ledger, checkpoint)(answer)
        if answer.result is not None:
            kept[0] = answer.result[1]
            ledger.remember(line, kept[0], checkpoint.step)

    is_complete = all(
        ledger.is_refused(c.step) or all(ledger.is_done(metric, c.step) for metric in metrics.values())
        for c in found.checkpoints
    )
    if is_complete:
        return Lane(deque(), is_ordered=True)
    seen = {positions.get(d.name) for d in diagnostics if remembers(d)}
    start = next(iter(seen)) if len(seen) == 1 else None
    return Lane(deque(
        Job(c.label, lambda c=c: work(c), lambda answer, c=c: done(answer, c))
        for c in found.checkpoints if start is None or c.step > start
    ), is_ordered=True)  # fmt: skip


def _recorder(ledger: Ledger, checkpoint: Checkpoint) -> Callable[[Answer], None]:
    def record(answer: Answer) -> None:
        if answer.problem is not None:
            ledger.leave_out(answer.problem, checkpoint.step)
        else:
            ledger.write(checkpoint.step, answer.result[0])
        if answer.note is not None:
            ledger.note(answer.note, checkpoint.step)
        ledger.advance()

    return record
