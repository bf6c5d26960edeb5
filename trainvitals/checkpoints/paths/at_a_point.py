"""The loss at weights that no training step has visited, with the statistics of BatchNorm made anew there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainvitals.checkpoints.bench import Bench
from trainvitals.checkpoints.fitting import put

_BatchNorm = nn.modules.batchnorm._BatchNorm


def loss_here(bench: Bench, *, heldout: bool = False) -> float:
    """Return the loss at the model's present weights, on the train or the held-out probe.

    BatchNorm's running statistics are those of one pass over the train probe at these weights: interpolated ones
    belong to no network (Jordan et al. 2023, REPAIR). With several batches in the probe they count alike.
    """
    renew_statistics(bench)
    return bench.loss(heldout)


def renew_statistics(bench: Bench) -> None:
    """Set the running statistics of BatchNorm to those of the train probe. Other buffers stay."""
    subject = bench.subject
    layers = [m for m in subject.model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        return
    with _counting(subject.model, layers), torch.no_grad():
        for chunk in subject.train.chunks:
            subject.forward(subject.model, chunk) if subject.forward is not None else subject.model(chunk[0])


@contextmanager
def _counting(model: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Let BatchNorm alone see batches, and average them evenly."""
    modes, momenta = [(m, m.training) for m in model.modules()], [(m, m.momentum) for m in layers]
    try:
        model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.training = True
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for layer, momentum in momenta:
            layer.momentum = momentum


def put_mixed(model: nn.Module, a: Mapping[str, Tensor], b: Mapping[str, Tensor], share: float) -> None:
    """Put (1 − share) a + share b into the model, tensor by tensor; whole numbers are a's.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> put_mixed(model, {"weight": torch.zeros(1, 1)}, {"weight": torch.ones(1, 1)}, 0.25)
    >>> model.weight.item()
    0.25
    """
    put(model, (
        (name, wide(x).lerp(wide(b[name]), share) if x.is_floating_point() and share > 0 else x)
        for name, x in a.items()
    ))  # fmt: skip


def add(total: dict[str, Tensor], weights: Mapping[str, Tensor], factor: float) -> None:
    """Add factor · weights to a running sum, in float32 at least; whole numbers are left out."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            continue
        if name not in total:
            total[name] = torch.zeros_like(wide(tensor))
        total[name].add_(wide(tensor), alpha=factor)


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor, in float32 if it is of fewer bits."""
    return tensor.float() if tensor.element_size() < 4 else tensor
