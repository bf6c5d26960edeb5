"""The jobs of metrics of paths: they begin when every checkpoint has been seen, and leave out what cannot be used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from trainvitals.checkpoints.finding import Checkpoint, Found
from trainvitals.checkpoints.jobs import Answer, Check, Job, Lane
from trainvitals.checkpoints.ledger import Ledger
from trainvitals.checkpoints.paths.base import Part, PathMetric


def lanes_of_paths(
    ledger: Ledger, found: Found, metrics: Sequence[PathMetric], after: Sequence[Lane]
) -> list[Lane]:
    """Return a lane for each metric, after the lanes that look at every checkpoint."""
    if not metrics:
        return []
    lanes = [] if after else [_checks(ledger, found)]
    by_name: dict[str, Lane] = {}
    first = list(after) or lanes[:1]
    for metric in sorted(metrics, key=lambda metric: metric.comes_after is not None):
        before = [*first, *by_name.values()] if metric.comes_after else first  # alone: it keeps weights meanwhile
        by_name[metric.name] = lane = Lane(deque(), after=before)
        lane.fill = lambda metric=metric: _jobs(ledger, found, metric)
        lanes.append(lane)
    return lanes


def _checks(ledger: Ledger, found: Found) -> Lane:
    """Look at every checkpoint where nothing is measured at them."""

    def job(checkpoint: Checkpoint) -> Job:
        def done(answer: Answer) -> None:
            if answer.problem is not None:
                ledger.leave_out(answer.problem, checkpoint.step)
            ledger.advance()

        return Job(checkpoint.label, lambda: Check(checkpoint), done)

    return Lane(deque(job(checkpoint) for checkpoint in found.checkpoints))


def _jobs(ledger: Ledger, found: Found, metric: PathMetric) -> Iterable[Job]:
    usable = [c for c in found.checkpoints if not ledger.is_refused(c.step)]
    parts = metric.works(usable) if usable else []
    jobs = [
        _job(ledger, metric, index, part) for index, part in enumerate(parts)
        if part.metric is None or not ledger.is_done(part.metric, part.step)
    ]  # fmt: skip
    ledger.add_jobs(len(jobs))
    return jobs


def _job(ledger: Ledger, metric: PathMetric, index: int, part: Part) -> Job:
    def done(answer: Answer) -> None:
        if answer.problem is not None:
            ledger.leave_out(answer.problem, part.step, is_of_checkpoint=False)
        else:
            for at, readings in sorted(metric.arrived(index, answer.result).items()):
                ledger.write(at, readings)
        ledger.advance()

    return Job(f"{metric.name} at step {part.step}", lambda: part.work, done)
