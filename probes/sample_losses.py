"""The loss of each sample of a probe, from outputs that are already there.

Legend: N samples of the probe, n samples of one chunk.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.func import vmap

from trainvitals.diagnostics.base import Missing
from trainvitals.probes.bystander import seed_random_state
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.subject import Subject, float32_if_half


def sample_losses(subject: Subject, batch: ProbeBatch, chunks: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the loss of each sample, (N,) in float64.

    With `loss=` it is the loss of that sample's output alone and needs no pass; with `forward=` one more forward
    pass asks for it.

    Args:
        subject: the model and its loss.
        batch: the probe.
        chunks: mean loss and outputs (n, ...) of each chunk, as its forward pass gave them.

    Raises:
        Missing: if the loss does not take one sample alone, `forward=` returns a mean, or the mean of the samples'
            losses is not the batch's loss.
    """
    if subject.forward is not None:
        return _from_forward(subject, batch)
    found = [
        losses_of_outputs(subject, outputs, float32_if_half(chunk[1]), size)
        for chunk, size, (_, outputs) in zip(batch.chunks, batch.sizes, chunks, strict=True)
    ]
    for (loss, _), losses in zip(chunks, found, strict=True):
        check_mean(float(loss), float(losses.mean()))
    return torch.cat(found)


def check_mean(whole: float, mean_of_samples: float) -> None:
    """Refuse numbers by sample whose loss is not a mean over samples: they would mean something else.

    Raises:
        Missing: if the two differ by more than a thousandth, or only the whole is finite.
    """
    if not math.isfinite(whole):
        return
    if not abs(whole - mean_of_samples) <= 1e-3 * max(abs(whole), abs(mean_of_samples), 1e-6):
        raise Missing(
            f"the batch's loss ({whole:.6g}) is not the mean of its samples' losses ({mean_of_samples:.6g}): "
            "a sum, class weights, a mean over tokens of samples of unlike length, BatchNorm or dropout in train mode "
            "make them differ"
        )


def _from_forward(subject: Subject, batch: ProbeBatch) -> Tensor:
    parameters, found = subject.parameters(), []
    for chunk, size in zip(batch.chunks, batch.sizes, strict=True):
        subject.num_passes["forward"] += 1
        with torch.no_grad():
            losses, _ = subject.raw_loss_and_outputs(parameters, chunk)
        if tuple(losses.shape) != (size,):
            raise Missing("forward= returns the mean loss of a batch; let it return one loss a sample for this number")
        found.append(losses.double())
    return torch.cat(found)


def losses_of_outputs(subject: Subject, outputs: Tensor, targets: Tensor, size: int) -> Tensor:
    """Return the losses of n samples, (n,) in float64: one vectorised call, or one call a sample where that fails.

    Raises:
        Missing: if outputs or targets have no row for each sample, or the loss does not take one sample alone.
    """
    if outputs.ndim == 0 or len(outputs) != size or targets.ndim == 0 or len(targets) != size:
        raise Missing("the model's outputs have no row for each sample")
    outputs, targets = outputs.clone(), targets.clone()  # a loss may write to what it is given

    def loss_of(z: Tensor, y: Tensor) -> Tensor:
        return subject.loss(z.unsqueeze(0), y.unsqueeze(0)).mean()  # pyright: ignore[reportOptionalCall]

    with torch.no_grad(), warnings.catch_warnings(), subject.default_device or nullcontext():
        warnings.simplefilter("ignore")  # some losses say that vmap runs them one sample at a time: still right
        seed_random_state(subject.seed)
        try:
            losses = vmap(loss_of, randomness="same")(outputs, targets)
        except Exception:
            losses = _one_by_one(loss_of, outputs, targets)
    return losses.double()


def _one_by_one(loss_of: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    try:
        return torch.stack([loss_of(z, y) for z, y in zip(outputs, targets, strict=True)])
    except Exception as error:
        raise Missing(f"the loss does not take one sample alone: {error}") from error
