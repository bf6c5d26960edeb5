"""Per-sample gradients of some chunks of the probe, folded into tensors that add up over processes.

Legend: N samples of the probe, n of them in the Gram matrix, K blocks, P trainable parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainvitals.diagnostics.crew import Task
from trainvitals.diagnostics.gradient_gram import GradientGram
from trainvitals.diagnostics.gradient_sums import NUM_BLOCKS, GradientSums
from trainvitals.probes.gradients import per_sample_gradients
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.subject import Subject

if TYPE_CHECKING:
    from trainvitals.probes.crew_leader import CrewLeader

_FIELDS = (
    "sum", "unit_sum", "sum_of_squares", "class_sizes", "class_counts", "class_sums", "class_unit_sums", "block_sums",
)  # fmt: skip


@dataclass(frozen=True)
class FoldPlan:
    """What is folded: the same for every process."""

    labels: Tensor | None  # (N,) classes
    num_classes: int | None
    chosen: Tensor | None  # (n,) numbers of the samples in the Gram matrix, ascending


def fold(
    subject: Subject, parameters: Mapping[str, Tensor], batch: ProbeBatch, chunks: Iterable[int], plan: FoldPlan
) -> list[Tensor]:
    """Return the folds over some chunks of the probe, in tensors that add up to those over all of them.

    What is kept of every sample, its gradient's squared norm and its row for the Gram matrix, stands at the sample's
    own place among zeros.

    Args:
        subject: the model and its loss, inside the bystander.
        parameters: trainable parameters by name.
        batch: the whole probe, in chunks.
        chunks: numbers of those to fold, ascending.
        plan: what is folded.
    """
    starts = [0, *accumulate(batch.sizes)]
    norms = torch.zeros(batch.num_samples, dtype=torch.float64)
    total = torch.zeros(1, dtype=torch.float64)
    layout = {name: p.shape for name, p in parameters.items()}
    whole = GradientSums(layout, plan.num_classes)
    rows = _no_rows(parameters, plan)
    device = next(iter(parameters.values())).device
    for number in chunks:
        place, sums = starts[number], GradientSums(layout, plan.num_classes)
        loss_of = _loss_of(subject)
        for gradients, losses in per_sample_gradients(loss_of, parameters, batch.chunks[number], batch.sizes[number]):
            stop = place + len(losses)
            sums.add(gradients.detach(), None if plan.labels is None else plan.labels[place:stop])
            if rows is not None and plan.chosen is not None:
                inside = ((plan.chosen >= place) & (plan.chosen < stop)).nonzero().flatten()
                picked = gradients.detach()[(plan.chosen[inside] - place).to(gradients.device)]
                rows[inside.to(rows.device)] = picked.to(rows.dtype)
            total += losses.detach().double().sum().cpu()
            place = stop
        norms[starts[number] : place] = sums.squared_norms.cpu()
        _add(whole, sums, starts[number])
    subject.num_passes["backward"] += 1
    fields = [getattr(whole, name).to(device) for name in _FIELDS if getattr(whole, name) is not None]
    return [*fields, norms, total, *([] if rows is None else [rows])]


def fold_together(
    subject: Subject, crew: CrewLeader, parameters: Mapping[str, Tensor], plan: FoldPlan
) -> tuple[GradientSums, GradientGram | None, float]:
    """Return `unfolded` folds over the whole probe, each rank's chunks folded there."""
    batch, mine = crew.batch, crew.mine
    others = [number for number in range(len(batch.chunks)) if number not in mine]
    task = Task("fold", tuple((number, batch.shares[number]) for number in others), (plan,))
    found = crew.together(
        task,
        list(parameters.values()),
        None,
        lambda: fold(subject, parameters, batch, mine, plan),
        lambda: fold(subject, parameters, batch, others, plan),
    )
    return unfolded(found, parameters, plan)


def unfolded(
    found: list[Tensor], parameters: Mapping[str, Tensor], plan: FoldPlan
) -> tuple[GradientSums, GradientGram | None, float]:
    """Return the sums, the Gram matrix if there is one and the sum of losses that added folds stand for."""
    sums = GradientSums({name: p.shape for name, p in parameters.items()}, plan.num_classes)
    tensors = iter(found)
    for name in _FIELDS:
        if getattr(sums, name) is not None:
            setattr(sums, name, next(tensors))
    sums.squared_norms = next(tensors).to(sums.sum.device)
    sums.num_samples = len(sums.squared_norms)
    total = float(next(tensors))
    if plan.chosen is None:
        return sums, None, total
    gram = GradientGram(torch.arange(len(plan.chosen)))
    gram.add(next(tensors))
    gram.chosen = plan.chosen
    return sums, gram, total


def _add(whole: GradientSums, sums: GradientSums, start: int) -> None:
    for name in _FIELDS:
        held, added = getattr(whole, name), getattr(sums, name)
        if held is None or added is None:
            continue
        if name == "block_sums":  # blocks go by the sample's number in the whole probe
            added = added.roll(start % NUM_BLOCKS, 0)
        setattr(whole, name, held.to(added.device) + added)


def _no_rows(parameters: Mapping[str, Tensor], plan: FoldPlan) -> Tensor | None:
    if plan.chosen is None:
        return None
    num_parameters = sum(p.numel() for p in parameters.values())
    dtype = functools.reduce(torch.promote_types, [p.dtype for p in parameters.values()])
    return torch.zeros(len(plan.chosen), num_parameters, dtype=dtype, device=next(iter(parameters.values())).device)


def _loss_of(subject: Subject) -> Any:
    return lambda parameters, batch: subject.loss_and_outputs(parameters, batch)[0]
