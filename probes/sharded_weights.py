"""Weights that are spread over ranks (FSDP2), put together for a measurement: one gather of each tensor.

Between measurements nothing is held. During one, every rank that works holds the whole weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from trainvitals.diagnostics.base import Missing, OptimizerView, Trajectory
from trainvitals.probes.optimizer_view import optimizer_view
from trainvitals.probes.ranks import Ranks
from trainvitals.probes.twin import Twin

Entries = Callable[[], Mapping[Hashable, Tensor]]


class NotHeldError(RuntimeError):
    """A rank has no part of what is to be put together."""


class ShardedWeights:
    """The plain twin of an FSDP2 model, and what is gathered into it. Every method but `forget` is for all ranks.

    Args:
        model: as `fully_shard` left it.
        ranks: all that hold a part of it.
        device: where passes run.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, device: torch.device) -> None:
        self.original = model
        self._ranks = ranks
        self._mesh = DeviceMesh.from_group(ranks.tensors, device.type)
        self._sharded = dict(model.named_parameters())
        self._twin = Twin(model, FSDPModule, device)

    @property
    def model(self) -> nn.Module:
        """The twin: with whole weights after `gather`."""
        return self._twin.model

    def gather(self) -> None:
        """Put the weights together, in the twin of every rank."""
        self._twin.follow(self._gathered(self._weights, at_once=False))  # pyright: ignore[reportArgumentType]

    def forget(self) -> None:
        """Let go of the whole weights."""
        self._twin.forget()

    def optimizer(self, optimizer: Optimizer) -> OptimizerView:
        """Return the optimiser with its whole state."""

        def view() -> OptimizerView:
            return optimizer_view(optimizer, self.original)

        def spread() -> dict[Hashable, Tensor]:
            found = view().state.items()
            return {(n, key): t for n, state in found for key, t in state.items() if isinstance(t, DTensor)}

        whole = self._gathered(spread)
        here = view()
        state: dict[str, Mapping[str, Any]] = {
            name: {key: whole.get((name, key), value) for key, value in state.items()}
            for name, state in here.state.items()
        }
        return OptimizerView(here.kind, here.groups, state)

    def trajectory(self, recorded: Callable[[], Trajectory]) -> Callable[[], Trajectory]:
        """Return what gives the last two steps with whole gradients and updates, or raises `Missing`."""
        fields = ("gradient", "update", "previous_gradient", "previous_update")

        def entries() -> dict[Hashable, Tensor]:
            found = recorded()
            return {(field, n): t for field in fields for n, t in (getattr(found, field) or {}).items()}

        try:
            whole = self._gathered(entries)
        except NotHeldError as error:
            return partial(_missing, str(error))
        parts: list[dict[str, Tensor]] = [{n: t for (f, n), t in whole.items() if f == field} for field in fields]
        found = Trajectory(parts[0], parts[1], parts[2] or None, parts[3] or None)
        return lambda: found

    def _weights(self) -> dict[Hashable, Tensor]:
        """Return parameters by name, in the part that this rank holds: outside of passes the model shows it."""
        now = dict(self.original.named_parameters())
        self._sharded |= {name: p for name, p in now.items() if isinstance(p, DTensor)}
        return {name: self._sharded[name] for name in now}

    def _gathered(self, entries: Entries, *, at_once: bool = True) -> dict[Any, Tensor]:
        """Return whole tensors by key, those that the leader names; `at_once` lets go of helpers' at once.

        Raises:
            NotHeldError: on every rank, before anything is gathered, if one of them does not have them all.
        """
        mine: Mapping[Hashable, Tensor] = {}
        problem = ""
        try:
            mine = entries()
        except Exception as error:
            problem = str(error)
        shapes = [(key, tuple(tensor.shape)) for key, tensor in mine.items()]
        wanted = self._ranks.told(None if problem else shapes)
        has_all = not problem and wanted is not None and all((k, tuple(mine[k].shape)) == (k, s) if k in mine else False
                                                             for k, s in wanted)  # fmt: skip
        if self._ranks.counted([int(not has_all)])[0] or wanted is None:
            raise NotHeldError(problem or "the ranks do not hold parts of the same tensors")
        found: dict[Any, Tensor] = {}
        for key, _ in wanted:
            whole = self._whole(mine[key])
            if self._ranks.is_leader or not at_once:
                found[key] = whole
        return found

    @torch.no_grad()
    def _whole(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor.detach().clone()
        mesh, local = tensor.device_mesh, tensor.to_local().detach()
        if mesh.ndim == 1 and tuple(mesh.mesh.tolist()) == self._ranks.members:  # over a group of our own
            local = local.to(self._mesh.device_type)
            tensor = DTensor.from_local(
                local, self._mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
            )
        return tensor.full_tensor().detach()


def _missing(reason: str) -> NoReturn:
    raise Missing(reason)
