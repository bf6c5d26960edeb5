"""How a model is spread over processes: copies kept alike (DDP), or parts of every weight (FSDP2), and by whom."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

COPIES, PARTS = "copies of the model (DDP)", "parts of every weight (FSDP2)"
RANKS_OPTIONS = ("auto", "all", "this")


@dataclass(frozen=True)
class Spread:
    """A model that several processes train."""

    kind: str  # COPIES or PARTS
    members: tuple[int, ...]  # global ranks
    model: nn.Module  # without wrappers: for PARTS as `fully_shard` left it


def spread_of(model: nn.Module, ranks: str) -> Spread | None:
    """Return how a model is spread, or None where this process watches alone.

    Args:
        model: as the user trains it.
        ranks: "auto" sees wrappers; "all" takes a model without a wrapper for a copy in every process, which the
            user keeps alike; "this" watches in this process alone.

    Raises:
        ValueError: for another word, for "all" without a process group, for FSDP1, and for "this" where this process
            has only parts of the weights.
    """
    if ranks not in RANKS_OPTIONS:
        raise ValueError(
            f"expected ranks= to be one of {', '.join(map(repr, RANKS_OPTIONS))}, got {ranks!r} in trainvitals.watch; "
            "leave it out for 'auto'"
        )
    is_running = dist.is_available() and dist.is_initialized()
    if not is_running:
        if ranks == "all":
            raise ValueError(
                "expected a process group for ranks='all', got none in trainvitals.watch; call "
                "torch.distributed.init_process_group first"
            )
        return None
    inner, wrapper = _without_wrappers(model)
    _refuse_fsdp1(model)
    members = _ranks_of_parts(inner)
    if members is not None:
        if ranks == "this" and len(members) > 1:
            raise ValueError(
                "expected every rank to watch a model that fully_shard has spread, got ranks='this' in "
                "trainvitals.watch; leave ranks= out and call watch on every rank"
            )
        return Spread(PARTS, members, inner)
    if ranks == "this" or (ranks == "auto" and wrapper is None):
        return None
    group = None if wrapper is None else wrapper.process_group
    members = tuple(dist.get_process_group_ranks(group)) if group is not None else tuple(range(dist.get_world_size()))
    return Spread(COPIES, members, inner) if len(members) > 1 else None


def device_of(model: nn.Module) -> torch.device:
    """Return where passes run: where the weights are, or the mesh's device where they wait on the CPU."""
    first = next(p for p in model.parameters())
    mesh = getattr(first, "device_mesh", None)
    if mesh is None or mesh.device_type == first.device.type:
        return first.device
    return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())


def _without_wrappers(model: nn.Module) -> tuple[nn.Module, nn.parallel.DistributedDataParallel | None]:
    wrapper = None
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            wrapper = model if isinstance(model, nn.parallel.DistributedDataParallel) else wrapper
            model = model.module
        else:
            return model, wrapper


def _ranks_of_parts(model: nn.Module) -> tuple[int, ...] | None:
    """Return who holds the parts of an FSDP2 model, None for any other."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # nobody has sharded anything who has not imported it
    wrapped = getattr(fsdp, "FSDPModule", None)
    if wrapped is None or not any(isinstance(module, wrapped) for module in model.modules()):
        return None
    meshes = [mesh for p in model.parameters() if (mesh := getattr(p, "device_mesh", None)) is not None]
    return tuple(sorted({rank for mesh in meshes for rank in mesh.mesh.flatten().tolist()}))


def _refuse_fsdp1(model: nn.Module) -> None:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    old = getattr(fsdp, "FullyShardedDataParallel", None)
    if old is not None and any(isinstance(module, old) for module in model.modules()):
        raise ValueError(
            "expected a model wrapped by DistributedDataParallel or torch.distributed.fsdp.fully_shard, got "
            "FullyShardedDataParallel (FSDP1) in trainvitals.watch; shard it with fully_shard"
        )
