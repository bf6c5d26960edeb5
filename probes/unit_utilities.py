"""What each unit is worth to the loss, to first order: one forward and one backward pass over the probe."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainvitals.probes.activations import Capture
from trainvitals.probes.gradients import gradients_of
from trainvitals.probes.subject import Subject


def unit_utilities(subject: Subject, parameters: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Return −Σ g·h over samples and positions of each unit, (d,) in float64, by name of the activation h.

    g is the gradient of the mean loss of the train probe by h. None where no trainable weight lies before a layer:
    no gradient flows to it.
    """
    capture = Capture(subject.model, activations=False, features=False, utilities=True)
    batch = subject.train
    for chunk, size, share in zip(batch.chunks, batch.sizes, batch.shares, strict=True):
        values = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        subject.num_passes["forward"] += 1
        subject.num_passes["backward"] += 1
        with torch.enable_grad(), capture.capturing(size):
            loss, _ = subject.loss_and_outputs(values, chunk)
            gradients_of(loss * share, list(values.values()))
    return capture.utilities
