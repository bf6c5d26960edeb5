"""Loss and outputs on the pieces of a probe as functions of its inputs.

Legend: N samples of the probe, n samples of one chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.input_loss import InputLoss
from trainvitals.probes.probe_batch import ProbeBatch
from trainvitals.probes.sample_losses import check_mean, losses_of_outputs
from trainvitals.probes.subject import Subject, float32_if_half


def input_losses(subject: Subject, parameters: Mapping[str, Tensor], batch: ProbeBatch) -> list[InputLoss]:
    """Return the loss on each chunk of `batch` as functions of its inputs.

    Raises:
        Missing: if the model is called through `forward=`, or its inputs are not floating-point numbers.
    """
    if subject.loss is None:
        raise Missing("the model is called through forward=: which of a batch's tensors are its inputs is not known")
    found = []
    for chunk, size in zip(batch.chunks, batch.sizes, strict=True):
        if not chunk[0].is_floating_point():
            raise Missing(f"the model's inputs are {chunk[0].dtype}: small changes of them have no meaning")
        found.append(_input_loss(subject, parameters, chunk, size))
    return found


def _input_loss(subject: Subject, parameters: Mapping[str, Tensor], chunk: Any, size: int) -> InputLoss:
    targets = float32_if_half(chunk[1])

    def called(inputs: Tensor) -> tuple[Tensor, Tensor]:
        subject.num_passes["forward"] += 1
        loss, outputs = subject.loss_and_outputs(parameters, (inputs, chunk[1]))
        if not isinstance(outputs, Tensor):
            raise Missing(f"the model's outputs are a {type(outputs).__name__}, not one tensor")
        return loss, outputs

    def outputs_and_losses(inputs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            loss, outputs = called(inputs)
        losses = losses_of_outputs(subject, outputs, targets, size)
        check_mean(float(loss), float(losses.mean()))
        return outputs, losses

    return InputLoss(
        size, float32_if_half(chunk[0]), targets,
        outputs=lambda inputs: called(inputs)[1],
        mean=lambda inputs: called(inputs)[0],
        outputs_and_losses=outputs_and_losses,
        of=lambda rows: _input_loss(subject, parameters, (chunk[0][rows], chunk[1][rows]), len(rows)),
    )  # fmt: skip
