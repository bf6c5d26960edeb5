"""The ranks that help: they wait for orders while the leader measures, and do their part of each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainvitals.diagnostics.batch_loss import BatchLoss, mean_gradient
from trainvitals.diagnostics.crew import Task
from trainvitals.diagnostics.linalg.batch_operator import BatchOperator
from trainvitals.probes.batch_losses import batch_losses
from trainvitals.probes.crew_leader import Order
from trainvitals.probes.gradient_folds import fold
from trainvitals.probes.measure import lent
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.ranks import Ranks
from trainvitals.probes.subject import Subject

_MAX_OPERATORS = 2  # kept with their graphs: the Hessian's and one other's


class CrewHelper:
    """A rank's part of the work on the train probe.

    Args:
        ranks: all of them.
        batch: the train probe in chunks, which every rank holds.
        parts: the numbers of the chunks that each rank works on.
    """

    def __init__(self, ranks: Ranks, batch: ProbeBatch, parts: Sequence[range]) -> None:
        self.is_willing = True  # until one of the helpers fails
        self._ranks, self._batch, self._mine = ranks, batch, parts[ranks.number]

    def serve(self, subject: Subject) -> None:
        """Do what the leader orders, in one stay at the model, until it has measured."""
        given = [self._ranks.handed(buffer) for buffer in subject.model.buffers()]
        with lent(subject):
            for clone, buffer in zip(subject.model.buffers(), given, strict=True):
                clone.copy_(buffer)
            work = Work(subject, self._batch, self._mine)
            while (order := self._ranks.told()) is not None:
                self._obey(order, work)
            work.release()

    def _obey(self, order: Order, work: Work) -> None:
        if order.brings_values:
            work.take(order.values, [self._ranks.handed(torch.empty_like(p)) for p in work.at_step])
        rows = None
        if order.rows is not None:
            shape, dtype = order.rows
            rows = self._ranks.handed(torch.empty(shape, dtype=dtype, device=work.at_step[0].device))
        reason, found = "", []
        try:
            found = work.found(order.task, order.values, rows)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        num_leading, num_helping = self._ranks.counted([0, int(bool(reason))])
        if num_leading:
            return
        if num_helping:
            self.is_willing = False
            self._ranks.gathered(reason)
            return
        for tensor in found:
            self._ranks.summed(tensor)


class Work:
    """The chunks of this rank, at the weights of the step or at others that the leader sends."""

    def __init__(self, subject: Subject, batch: ProbeBatch, mine: range) -> None:
        self._subject, self._batch, self._mine = subject, batch, mine
        self._parameters = subject.parameters()
        self.at_step = list(self._parameters.values())
        self._losses = batch_losses(subject, list(self._parameters), batch)
        self._others: tuple[int, list[Tensor]] = (0, [])
        self._operators: dict[tuple[Any, ...], BatchOperator] = {}  # the one used last at the end

    def take(self, number: int, values: list[Tensor]) -> None:
        """Take other parameters than the step's; what stood at the ones before is let go."""
        self._others = number, values
        for key in [key for key in self._operators if key[0] != 0]:
            self._operators.pop(key).release()

    def release(self) -> None:
        """Let go of all graphs."""
        for operator in self._operators.values():
            operator.release()
        self._operators.clear()
        self._subject.products.disown()

    def found(self, task: Task, number: int, rows: Tensor | None) -> list[Tensor]:
        """Return this rank's part of what is asked for: zeros where it has none."""
        chunks = tuple((chunk, share) for chunk, share in task.chunks if chunk in self._mine)
        values = self.at_step if number == 0 else self._others[1]
        if task.kind == "fold":
            return fold(self._subject, self._parameters, self._batch, [chunk for chunk, _ in chunks], *task.options)
        total = sum(share for _, share in chunks)
        losses = [replace(self._losses[chunk], share=share / total) for chunk, share in chunks]
        if task.kind == "gradient":
            return [total * part for part in mean_gradient(losses, values)]
        cls, way, block, step_factor = task.options
        operator = self._operator((number, cls, way, step_factor, chunks), losses, values) if losses else None
        if task.kind == "slope":
            if operator is None:
                return [_no_slope(values)]
            return [total * operator.slope_part(way)]  # pyright: ignore[reportAttributeAccessIssue]
        assert rows is not None  # the only other kind is "product"
        return [torch.zeros_like(rows) if operator is None else total * operator.part(way, block, rows)]

    def _operator(self, key: tuple[Any, ...], losses: list[BatchLoss], values: list[Tensor]) -> BatchOperator:
        operator = self._operators.pop(key, None)
        if operator is None:
            while len(self._operators) >= _MAX_OPERATORS:
                self._operators.pop(next(iter(self._operators))).release()
            products, (_, cls, _, step_factor, _) = self._subject.products, key
            if step_factor != products.step_factor:
                products = products.with_step(step_factor)
            operator = cls(losses, dict(zip(self._parameters, values, strict=True)), products)
        self._operators[key] = operator
        return operator


def _no_slope(values: Sequence[Tensor]) -> Tensor:
    dtype = functools.reduce(torch.promote_types, [p.dtype for p in values])
    return torch.zeros(sum(p.numel() for p in values), dtype=dtype, device=values[0].device)
