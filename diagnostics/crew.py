"""Work on the probe's batches that other processes, which hold the same weights, do a part of.

A batch that another process holds too carries a `Far`. Where a sum over batches is formed, its part is asked of the
crew; everything else that can be done with a batch is done here, for the batch itself is here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Task:
    """What is to be added up over batches: something that every process knows by its name."""

    kind: str
    chunks: tuple[tuple[int, float], ...]  # the number of each far batch, and its share of the whole
    options: tuple[Any, ...] = ()


class Crew(Protocol):
    """Processes that do a part of a sum over batches."""

    def together(
        self,
        task: Task,
        values: Sequence[Tensor],
        rows: Tensor | None,
        mine: Callable[[], list[Tensor]],
        theirs: Callable[[], list[Tensor]],
    ) -> list[Tensor]:
        """Return, tensor by tensor, the sum of `mine()` and of what the others find for the task.

        `values` are the parameters at which, `rows` the vectors to multiply. `theirs` does the others' part here: it
        is called where they cannot.
        """
        ...


@dataclass(frozen=True)
class Far:
    """Who else holds a batch, and under which number."""

    crew: Crew
    number: int
