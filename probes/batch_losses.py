"""The loss on pieces of the train probe, as functions of the parameters.

Legend: N samples of the probe, n samples of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.probes.micro_batches import micro_batches
from trainvitals.probes.probe_batch import ProbeBatch, first_samples, joined
from trainvitals.probes.subject import Subject, float32_if_half


def batch_losses(subject: Subject, names: Sequence[str], batch: ProbeBatch) -> list[BatchLoss]:
    """Return the loss on each chunk of `batch`, a function of parameters in the order of `names`."""
    return [
        _batch_loss(subject, list(names), chunk, size, share)
        for chunk, size, share in zip(batch.chunks, batch.sizes, batch.shares, strict=True)
    ]


def _batch_loss(subject: Subject, names: list[str], chunk: Any, size: int, share: float) -> BatchLoss:
    def called(values: Sequence[Tensor]) -> tuple[Tensor, Any]:
        subject.num_passes["forward"] += 1
        return subject.loss_and_outputs(dict(zip(names, values, strict=True)), chunk)

    def outputs(values: Sequence[Tensor]) -> Tensor:
        if subject.loss is None:
            raise Missing("the model is called through forward=: its loss is not a known function of its outputs")
        found = called(values)[1]
        if not isinstance(found, Tensor):
            raise Missing(f"the model's outputs are a {type(found).__name__}, not one tensor")
        return found

    def loss(z: Tensor, targets: Tensor) -> Tensor:
        assert subject.loss is not None  # `outputs` has raised
        return subject.loss(z, float32_if_half(targets)).mean()

    def loss_of_sample(z: Tensor, index: int) -> Tensor:
        return loss(z, chunk[1][index : index + 1])

    def first(count: int) -> BatchLoss:
        return _batch_loss(subject, names, first_samples(chunk, count, size), count, share)

    def split(most: int) -> list[BatchLoss]:
        return batch_losses(subject, names, micro_batches(subject, chunk, size, most))

    return BatchLoss(share, size, lambda values: called(values)[0], outputs, lambda z: loss(z, chunk[1]),
                     loss_of_sample, first, split)  # fmt: skip


def mini_batches(batch: ProbeBatch, size: int, generator: torch.Generator) -> ProbeBatch:
    """Return the probe's samples, shuffled, in chunks of exactly `size`; what is left over is left out.

    Raises:
        Missing: if there are fewer than two such chunks, or the probe's batches cannot be joined.
    """
    count = batch.num_samples // size
    if count < 2:
        raise Missing(f"the train probe has {batch.num_samples} samples: fewer than two mini-batches of {size}")
    order = torch.randperm(batch.num_samples, generator=generator)
    whole = _whole(batch)
    picks = order[: count * size].view(count, size)
    return ProbeBatch(tuple(_picked(whole, pick, batch.num_samples) for pick in picks), (size,) * count)


def some_samples(batch: ProbeBatch, rows: Sequence[int]) -> ProbeBatch:
    """Return these samples of the probe, in chunks no larger than the probe's own.

    Raises:
        Missing: if the probe's batches cannot be joined.
    """
    whole = _whole(batch)
    picks = torch.as_tensor(rows, dtype=torch.long).split(max(batch.sizes))
    chunks = tuple(_picked(whole, pick, batch.num_samples) for pick in picks)
    return ProbeBatch(chunks, tuple(len(pick) for pick in picks))


def _whole(batch: ProbeBatch) -> Any:
    try:
        return joined(batch.chunks, batch.sizes)
    except (RuntimeError, ValueError) as error:
        raise Missing(f"the probe's batches cannot be joined and cut into mini-batches: {error}") from error


def _picked(whole: Any, pick: Tensor, num_samples: int) -> Any:
    def picked(leaf: Any) -> Any:
        is_per_sample = isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == num_samples
        return leaf[pick.to(leaf.device)] if is_per_sample else leaf

    return tree_map(picked, whole)
