"""The rank that measures, where it asks the others to do their part of a sum over the probe's batches.

An order is one broadcast, and the tensors that go with it; then every rank computes, all say by one sum whether they
could, and what they found is added up. Only the leader decides what comes next, so a loop that ends by what it
measures (Lanczos) cannot part the ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.crew import Far, Task
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.ranks import Ranks


@dataclass(frozen=True)
class Order:
    """What the helpers are to do."""

    task: Task
    values: int  # number of the parameters at which: 0 for the weights of the step
    brings_values: bool  # they follow, a tensor each
    rows: tuple[torch.Size, torch.dtype] | None  # of the vectors that follow


class CrewLeader:
    """Implements `trainvitals.diagnostics.crew.Crew` on the rank that measures.

    Args:
        ranks: all of them.
        batch: the train probe in chunks, which every rank holds.
        parts: the numbers of the chunks that each rank works on.
    """

    def __init__(self, ranks: Ranks, batch: ProbeBatch, parts: Sequence[range]) -> None:
        self.batch, self.mine = batch, parts[ranks.number]
        self.is_willing = True  # until a helper fails
        self.is_interrupted = False  # in the middle of an order: who waits for what is not known any more
        self._ranks = ranks
        self._at_step: Sequence[Tensor] = ()
        self._sent: Sequence[Tensor] | None = None  # the last other parameters that the helpers were given
        self._same: Sequence[Tensor] | None = None  # last found to be the step's
        self._number = 0
        self._warn: Callable[[str], None] | None = None

    def begin(self, at_step: Sequence[Tensor], buffers: Iterable[Tensor], warn: Callable[[str], None]) -> None:
        """Begin with the weights of a step, which every rank has, and with this rank's buffers for all.

        The ranks' own running means differ: each has seen other samples. `warn` is told once if a helper fails.
        """
        self._at_step, self._warn = at_step, warn
        for buffer in buffers:
            self._ranks.handed(buffer)

    def end(self) -> None:
        """Send the helpers home."""
        self._at_step, self._sent, self._same, self._warn = (), None, None, None
        if not self.is_interrupted:
            self._ranks.told(None)

    def far(self, losses: Sequence[BatchLoss]) -> list[BatchLoss]:
        """Return the losses on the probe's chunks, those that others work on marked so."""
        return [
            loss if number in self.mine or not self.is_willing else replace(loss, far=Far(self, number))
            for number, loss in enumerate(losses)
        ]

    def together(
        self,
        task: Task,
        values: Sequence[Tensor],
        rows: Tensor | None,
        mine: Callable[[], list[Tensor]],
        theirs: Callable[[], list[Tensor]],
    ) -> list[Tensor]:
        """Return the sum over all ranks; see `Crew`.

        What fails here is raised here. What fails elsewhere is done here, and the others are not asked again.
        """
        if not self.is_willing:
            return _sums(mine(), theirs())
        self.is_interrupted = True
        self._order(task, values, rows)
        problem, found = None, []
        try:
            found = mine()
        except Exception as error:
            problem = error
        _, num_elsewhere = self._ranks.counted([int(problem is not None), 0])
        if problem is not None:
            self.is_interrupted = False
            raise problem
        if num_elsewhere:
            reasons = [reason for reason in self._ranks.gathered("") if reason]
            self.is_interrupted, self.is_willing = False, False
            if self._warn is not None:
                self._warn(f"another rank could not do its part ({reasons[0]}); rank 0 measures alone from here on")
            return _sums(found, theirs())
        total = [self._ranks.summed(tensor) for tensor in found]
        self.is_interrupted = False
        return total

    def _order(self, task: Task, values: Sequence[Tensor], rows: Tensor | None) -> None:
        is_of_step = self._is_of_step(values)
        brings = not is_of_step and values is not self._sent
        if brings:
            self._sent, self._number = values, self._number + 1
        shape = None if rows is None else (rows.shape, rows.dtype)
        self._ranks.told(Order(task, 0 if is_of_step else self._number, brings, shape))
        for tensor in values if brings else ():
            self._ranks.handed(tensor)
        if rows is not None:
            self._ranks.handed(rows)

    def _is_of_step(self, values: Sequence[Tensor]) -> bool:
        if values is self._same:
            return True
        pairs = zip(values, self._at_step, strict=True)
        if all(torch.equal(a.detach(), b) for a, b in pairs):
            self._same = values
            return True
        return False


def _sums(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    return [a + b.to(a.device) for a, b in zip(first, second, strict=True)]
