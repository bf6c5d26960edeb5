"""The loss on one batch of the probe as functions of the parameters, whole and through the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BatchLoss:
    """The loss on n samples of the train probe. Parameters are given as a list, in the snapshot's order.

    The loss splits into outputs and loss of the outputs only where the model is called as model(inputs)
    and gives one tensor: elsewhere `outputs` raises `Missing` with the reason.
    """

    share: float  # of the probe's samples; the shares of all batches add up to 1
    num_samples: int  # n
    mean: Callable[[Sequence[Tensor]], Tensor]  # parameters -> mean loss, one forward pass
    outputs: Callable[[Sequence[Tensor]], Tensor]  # parameters -> (n, ...), one forward pass
    mean_of_outputs: Callable[[Tensor], Tensor]  # (n, ...) -> mean loss
    loss_of_sample: Callable[[Tensor, int], Tensor]  # outputs (1, ...) of the i-th sample, i -> its loss
