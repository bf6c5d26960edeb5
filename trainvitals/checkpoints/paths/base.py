"""A metric of a path: the jobs that it needs, and the readings that come of their results.

The object lives where the run is written; what it sends to workers are its jobs alone.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trainvitals.checkpoints.finding import Checkpoint
from trainvitals.checkpoints.jobs import Work
from trainvitals.schema import Chart, Description, Question, Reading

Readings = Mapping[int, Mapping[str, Reading]]  # by step, by name


@dataclass(frozen=True)
class Part:
    """A job of a metric: where its result is recorded says whether it was done by an earlier part of an analysis."""

    work: Work
    step: int
    metric: str | None  # recorded at that step when the job is done; None: it must be done in any case


class PathMetric(abc.ABC):
    """One metric, or a group, of the path through several checkpoints. Abstract or final."""

    name: ClassVar[str]
    needs_model: ClassVar[bool] = True
    comes_after: ClassVar[str | None] = None  # the metric whose results it rests on

    @classmethod
    @abc.abstractmethod
    def descriptions(cls) -> dict[str, Description]:
        """Return the description of every metric that it gives, by its full name."""

    @abc.abstractmethod
    def works(self, checkpoints: Sequence[Checkpoint]) -> list[Part]:
        """Return the jobs for these checkpoints, in a fixed order."""

    @abc.abstractmethod
    def arrived(self, index: int, result: Any) -> Readings:
        """Take the result of the job of that number; return the readings that are ready."""


def described(
    name: str, title: str, summary: str, *, formula: str, unit: str, undefined: str, source: str, keys: str = "",
    chart: Chart = Chart.LINE, cost: str = "",
) -> Description:  # fmt: skip
    """Return a description of a metric of paths."""
    return Description(
        name=name, title=title, question=Question.CHECKPOINTS, summary=summary, formula=formula, unit=unit,
        undefined=undefined, source=source, chart=chart, keys=keys, cost=cost,
    )  # fmt: skip


def thinned(checkpoints: Sequence[Checkpoint], most: int) -> list[Checkpoint]:
    """Return at most that many checkpoints, evenly spread, the first and the last among them.

    >>> from pathlib import Path
    >>> [c.step for c in thinned([Checkpoint(Path(), i, "") for i in range(10)], 4)]
    [0, 3, 6, 9]
    """
    num = len(checkpoints)
    if num <= most:
        return list(checkpoints)
    return [checkpoints[round(i * (num - 1) / (most - 1))] for i in range(most)]
