"""Gradients one sample at a time, and what the training steps themselves did.

Legend: N samples of the probe, m samples of a piece, P trainable parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from trainvitals.diagnostics.base import Missing, Trajectory

LossOf = Callable[[Mapping[str, Tensor], Any], Tensor]  # (parameters by name, batch) -> scalar mean loss

# One piece of per-sample gradients stays under this: 32 samples of a model of a million parameters.
_PIECE_BYTES = 128 * 2**20


def per_sample_gradients(
    loss_of: LossOf, parameters: Mapping[str, Tensor], batch: Any, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield gradients (m, P) and losses (m,) of a batch's samples, piece by piece.

    One vectorised backward pass a piece (`torch.func.vmap`); where the model does not allow it (recurrent
    layers, control flow on data), one backward pass a sample.

    Raises:
        Missing: if a sample alone cannot go through the model (BatchNorm in train mode).
    """
    num_values = sum(p.numel() for p in parameters.values())
    itemsize = next(iter(parameters.values())).element_size()
    piece = max(1, min(size, _PIECE_BYTES // max(1, num_values * itemsize)))
    start, method = 0, _vectorised
    while start < size:
        part = _narrow(batch, start, min(piece, size - start), size)
        try:
            yield method(loss_of, parameters, part, min(piece, size - start))
        except Exception as error:
            if method is _one_by_one:
                raise Missing(f"the model or the loss does not take one sample alone: {error}") from error
            method = _one_by_one
            continue
        start += piece


def _vectorised(loss_of: LossOf, parameters: Mapping[str, Tensor], batch: Any, size: int) -> tuple[Tensor, Tensor]:
    def loss_of_sample(values: dict[str, Tensor], sample: Any) -> Tensor:
        alone = tree_map(lambda t, axis: t.unsqueeze(0) if axis == 0 else t, sample, axes)
        return loss_of(values, alone)

    axes = tree_map(lambda t: 0 if _is_per_sample(t, size) else None, batch)
    values = {name: p.detach() for name, p in parameters.items()}
    with warnings.catch_warnings():  # some layers say that vmap runs them one sample at a time: still right
        warnings.simplefilter("ignore")
        gradients, losses = vmap(grad_and_value(loss_of_sample), in_dims=(None, axes), randomness="same")(values, batch)
    return torch.cat([gradients[name].reshape(size, -1) for name in parameters], 1), losses


def _one_by_one(loss_of: LossOf, parameters: Mapping[str, Tensor], batch: Any, size: int) -> tuple[Tensor, Tensor]:
    rows, losses = [], []
    for index in range(size):
        values = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        loss = loss_of(values, _narrow(batch, index, 1, size))
        gradients = gradients_of(loss, list(values.values()))
        rows.append(torch.cat([g.reshape(-1) for g in gradients]))
        losses.append(loss.detach())
    return torch.stack(rows), torch.stack(losses)


def gradients_of(loss: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return ∂loss/∂leaf for each leaf: zeros for those that the loss does not depend on."""
    if not loss.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return torch.autograd.grad(loss, list(leaves), materialize_grads=True)


def _is_per_sample(leaf: Any, size: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == size


def _narrow(batch: Any, start: int, count: int, size: int) -> Any:
    return tree_map(lambda t: t[start : start + count] if _is_per_sample(t, size) else t, batch)


class TrajectoryRecorder:
    """Keeps copies of gradients and updates of the last two steps, only where a due step needs them.

    Args:
        names: gives the trainable parameters' names by identity; asked at every recorded step, for layers
            thaw.
        is_wanted: tells whether the trajectory is read after a given step.
    """

    def __init__(self, names: Callable[[], Mapping[Tensor, str]], is_wanted: Callable[[int], bool]) -> None:
        self._names = names
        self._is_wanted = is_wanted
        self._before: list[tuple[str, Tensor, Tensor]] | None = None  # name, parameter, its copy before the step
        self._steps: dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}  # step -> gradient, update

    @property
    def is_recording(self) -> bool:
        """Whether a step is being recorded, or one is kept that may have to be forgotten."""
        return self._before is not None or bool(self._steps)

    def before_step(self, optimizer: Optimizer, step: int) -> None:
        """Copy the weights of `optimizer` if the update that makes `step` will be read."""
        self._before = None
        if self._is_wanted(step) or self._is_wanted(step + 1):
            self._before = [(name, p, p.detach().clone()) for name, p in self._parameters(optimizer)]

    def after_step(self, optimizer: Optimizer, step: int) -> None:
        """Keep what the step that made `step` did, and forget what no later step reads."""
        if self._before is not None:
            update = {name: p.detach() - before for name, p, before in self._before}
            gradient = {
                name: (p.grad.to_dense() if p.grad.is_sparse else p.grad).detach().clone()
                for name, p, _ in self._before
                if p.grad is not None
            }
            self._steps[step] = (gradient, update)
        self._before = None
        self._steps = {kept: value for kept, value in self._steps.items() if kept >= step - 1}

    def at(self, step: int) -> Trajectory:
        """Return what the steps that made `step` and `step - 1` did.

        Raises:
            Missing: before the first training step.
        """
        if step not in self._steps:
            raise Missing("no training step has been taken since the run began")
        gradient, update = self._steps[step]
        previous = self._steps.get(step - 1, (None, None))
        return Trajectory(gradient, update, *previous)

    def _parameters(self, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
        names = self._names()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in names:
                    yield names[parameter], parameter
