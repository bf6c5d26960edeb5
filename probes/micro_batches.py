"""A probe's batch cut into pieces that fit into memory, worth the same together.

Legend: n samples of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from trainvitals.diagnostics.base import Missing
from trainvitals.probes.loss_terms import weighed
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.subject import Subject

_SAME_LOSS = {torch.float64: 1e-9}  # relative difference that passes for rounding
_SAME_LOSS_ELSE = 1e-5
_NEARBY = 0.1  # of the weights' size: where the losses are compared once more


def micro_batches(subject: Subject, chunk: Any, size: int, most: int) -> ProbeBatch:
    """Return a batch in order, in pieces of like size of at most `most` samples, with their shares of it.

    They are weighted by samples if that gives the batch's loss, here and at weights a little off (at the
    start of training, outputs can be zero and all losses alike); else by the loss terms that are found out.

    Args:
        subject: the model and its loss, inside the bystander.
        chunk: the batch.
        size: its number of samples.
        most: of a piece.

    Raises:
        Missing: if the batch's loss is not the weighted mean of its pieces'.
    """
    count = -(-size // most)
    bounds = [round(i * size / count) for i in range(count + 1)]
    pieces = tuple(_between(chunk, start, stop, size) for start, stop in pairwise(bounds))
    batch = ProbeBatch(pieces, tuple(stop - start for start, stop in pairwise(bounds)))
    if _is_same(subject, chunk, batch):
        return batch
    with suppress(ValueError):  # no counting rule explains it
        batch = weighed(subject, batch, "train", "a probe in micro-batches")
        if _is_same(subject, chunk, batch):
            return batch
    raise Missing(
        f"memory does not suffice for {size} samples at once, and cut into micro-batches it is another loss: BatchNorm "
        "or dropout in train mode, a sum, or a loss that compares samples; give fewer probe samples or more memory"
    )


def _between(chunk: Any, start: int, stop: int, size: int) -> Any:
    def cut(leaf: Any) -> Any:
        is_per_sample = isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == size
        return leaf[start:stop] if is_per_sample else leaf

    return tree_map(cut, chunk)


def _is_same(subject: Subject, chunk: Any, batch: ProbeBatch) -> bool:
    parameters = subject.parameters()
    for point in (parameters, dict(_nearby(parameters))):
        whole = _loss(subject, point, chunk)
        together = sum(
            share * _loss(subject, point, piece) for share, piece in zip(batch.shares, batch.chunks, strict=True)
        )
        tolerance = _SAME_LOSS.get(next(iter(parameters.values())).dtype, _SAME_LOSS_ELSE)
        if math.isfinite(whole) and not abs(whole - together) <= tolerance * max(abs(whole), 1e-6):
            return False
    return True


def _loss(subject: Subject, parameters: Mapping[str, Tensor], chunk: Any) -> float:
    subject.num_passes["forward"] += 1
    with torch.no_grad():
        return float(subject.loss_and_outputs(parameters, chunk)[0])


def _nearby(parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for name, p in parameters.items():
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device, p.dtype)
        yield name, p + _NEARBY * (float(p.double().square().mean().sqrt()) or 1.0) * noise
