"""What ranks do in tests: one training, watched or not, on a model wrapped in one way or another."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

import trainvitals as tv
from trainvitals.probes import arrival

NUM_STEPS = 4
NUM_SAMPLES = 48  # of the probe
BATCH = 16  # of all ranks together
SOME = ["loss", "hessian.top", "ggn.top", "grad.noise_scale", "oui", "weights.norm", "update"]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(NUM_SAMPLES, 6, generator=generator, dtype=torch.double)
    return x, (x[:, :3] + 0.5 * torch.randn(NUM_SAMPLES, 3, generator=generator, dtype=torch.double)).argmax(1)


class Net(nn.Module):
    """A network with a part that the loss does not use, buffers, dropout and an attribute that training changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Dropout(0.2)
        self.last, self.unused = nn.Linear(10, 3), nn.Linear(2, 2)
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.norm(self.first(x))))) * self.scale


class Plain(nn.Module):
    """The same without what differs between a rank's part of the batch and the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


def built(cls: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return cls().double()


def sharded(cls: type[nn.Module], **options: Any) -> nn.Module:
    model = built(cls)
    fully_shard(model.first, **options)
    return fully_shard(model, **options)


def part_of(rank: int, size: int, total: int) -> slice:
    """Return this rank's samples: an even part."""
    return slice(rank * total // size, (rank + 1) * total // size)


def uneven_part(rank: int, size: int) -> slice:
    """Return this rank's samples of the probe: the later ranks have more."""
    bounds = [NUM_SAMPLES * r * (r + 1) // (size * (size + 1)) for r in range(size + 1)]
    return slice(bounds[rank], bounds[rank + 1])


def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def train(
    model: nn.Module, rank: int, size: int, *, watching: dict[str, Any] | None, accumulate: int = 1,
    each: Callable[[int], None] | None = None, num_steps: int = NUM_STEPS, optimizer: type = torch.optim.Adam,
) -> tuple[list[Tensor], Any]:  # fmt: skip
    """Return losses and gradients at every step, and weights, buffers and random state at the end; and the watch."""
    x, y = data()
    steps = optimizer(model.parameters(), lr=0.01)
    torch.manual_seed(7 + rank)
    watch = None if watching is None else tv.watch(model, steps, loss=loss_fn, **watching)
    seen: list[Tensor] = []
    for step in range(num_steps):
        if each is not None:
            each(step)
        picked = torch.arange(step * BATCH, (step + 1) * BATCH)[part_of(rank, size, BATCH)] % NUM_SAMPLES
        steps.zero_grad()
        for piece in picked.chunk(accumulate):
            last = piece[-1] == picked[-1]
            quiet = model.no_sync() if accumulate > 1 and not last else torch.enable_grad()
            with quiet:
                loss = loss_fn(model(x[piece]), y[piece]) / accumulate
                loss.backward()
            seen.append(loss.detach().clone())
        seen += [local(p.grad).clone() for p in model.parameters() if p.grad is not None]
        steps.step()
    if watch is not None:
        watch.close()
    seen += [local(t.detach()).clone() for t in (*model.parameters(), *model.buffers())]
    return [*seen, torch.get_rng_state()], watch


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def probes_of(rank: int, size: int) -> dict[str, Any]:
    x, y = data()
    mine, held = uneven_part(rank, size), part_of(rank, size, NUM_SAMPLES)
    return {"train": (x[mine], y[mine]), "heldout": (x[held] + 0.1, y[held])}


def watching(rank: int, size: int, folder: Path, name: str, **options: Any) -> dict[str, Any]:
    given = {"probes": SOME, "every": 1, "budget": None, "store": folder / "runs", "name": name}
    return {**given, **probes_of(rank, size), **options}


def commented(model: nn.Module) -> nn.Module:
    model.register_comm_hook(None, fp16_compress_hook)
    return model


WRAPPED: dict[str, tuple[Callable[[], nn.Module], int]] = {  # name -> what makes the model, micro-batches a step
    "ddp": (lambda: DistributedDataParallel(built(Net), find_unused_parameters=True), 1),
    "ddp_no_sync": (lambda: DistributedDataParallel(built(Plain)), 2),
    "ddp_static_graph": (lambda: DistributedDataParallel(built(Plain), static_graph=True), 1),
    "ddp_comm_hook": (lambda: commented(DistributedDataParallel(built(Plain))), 1),
    "fsdp": (lambda: sharded(Net), 1),
    "fsdp_mixed": (lambda: sharded(Plain, mp_policy=MixedPrecisionPolicy(param_dtype=torch.float32)), 1),
}


def with_and_without(rank: int, size: int, folder: Path, names: list[str]) -> dict[str, Any]:
    """Train every model of `WRAPPED` twice; tell whether watching changed anything, and which run it gave."""
    found = {}
    for name in names:
        make, accumulate = WRAPPED[name]
        bare, _ = train(make(), rank, size, watching=None, accumulate=accumulate)
        options = watching(rank, size, folder, name)
        watched = make()
        seen, watch = train(watched, rank, size, watching=options, accumulate=accumulate)
        found[name] = {"same": same(bare, seen), "num": len(seen), "id": watch.id, "path": str(watch.path)}
        if hasattr(watched, "module"):
            found[name]["state"] = {key: t.clone() for key, t in watched.module.state_dict().items()}
    return found


def measured(rank: int, size: int, folder: Path, kind: str, **options: Any) -> str:
    """Train a model that sees the same on one rank and on several, watched; return the run's path."""
    make = {"one": lambda: built(Plain), "ddp": lambda: DistributedDataParallel(built(Plain)),
            "fsdp": lambda: sharded(Plain)}[kind]  # fmt: skip
    _, watch = train(make(), rank, size, watching=watching(rank, size, folder, f"measured-{kind}", **options))
    return str(watch.path)


def caught(action: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return what an action gives and the warnings of it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = action()
    return found, [str(warning.message) for warning in said]


def with_failing_helper(rank: int, size: int, folder: Path) -> Any:
    """Watch with a loss that fails on rank 1 as soon as training runs, in probe passes alone."""
    armed = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if armed and rank == 1:
            raise RuntimeError("this rank is ill")
        return F.cross_entropy(outputs, targets)

    def action() -> str:
        model = DistributedDataParallel(built(Plain))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        x, y = data()
        given = watching(rank, size, folder, "failing")
        with tv.watch(model, optimizer, loss=loss, **given) as run:
            armed.append(True)
            for step in range(NUM_STEPS):
                picked = torch.arange(step * BATCH, (step + 1) * BATCH)[part_of(rank, size, BATCH)] % NUM_SAMPLES
                optimizer.zero_grad()
                F.cross_entropy(model(x[picked]), y[picked]).backward()
                optimizer.step()
        return str(run.path)

    return caught(action)


class OnceDifferentiable(torch.autograd.Function):
    """tanh without a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return slope * (1 - y * y)


class Rough(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(OnceDifferentiable.apply(self.first(x)))


def without_second_derivative(rank: int, size: int, folder: Path) -> Any:
    options = watching(rank, size, folder, "rough", probes=["hessian.top"])

    def action() -> str:
        return str(train(DistributedDataParallel(built(Rough)), rank, size, watching=options)[1].path)

    return caught(action)


def with_budget(rank: int, size: int, folder: Path) -> str:
    """Watch at a budget: what is measured depends on the leader's clock."""
    options = watching(rank, size, folder, "budget", probes=["default", "hessian.top"], every=None, budget="20%")
    model = DistributedDataParallel(built(Plain))
    return str(train(model, rank, size, watching=options, num_steps=120)[1].path)


def closing_early(rank: int, size: int, folder: Path) -> Any:
    """Close the watch on one rank alone after two steps, and go on training."""

    def action() -> str:
        x, y = data()
        model = DistributedDataParallel(built(Plain))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        run = tv.watch(model, optimizer, loss=loss_fn, **watching(rank, size, folder, "closing"))
        for step in range(NUM_STEPS):
            if step == 2 and rank == 1:
                run.close()
            optimizer.zero_grad()
            loss_fn(model(x[part_of(rank, size, BATCH)]), y[part_of(rank, size, BATCH)]).backward()
            optimizer.step()
        run.close()
        return str(run.path)

    return caught(action)


def refused(rank: int, size: int, folder: Path) -> dict[str, str]:
    """Return what watch says where one rank's arguments are wrong, or not those of the others."""
    x, y = data()
    cases = {
        "bad batch": {"train": (x, y) if rank == 0 else (x, y[:-1])},
        "bad shapes": {"train": (x, y) if rank == 0 else (x[:, :4], y)},
        "other metrics": {"probes": ["loss"] if rank == 0 else ["loss", "oui"]},
        "bad store": {"store": folder / "runs" if rank == 1 else "/proc/no/such/folder"},
        "side": {"where": "side"},
    }
    found = {}
    for name, options in cases.items():
        model = DistributedDataParallel(built(Plain))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        try:
            tv.watch(model, optimizer, loss=loss_fn, **watching(rank, size, folder, name, **options))
        except Exception as error:
            found[name] = str(error)
    return found


def without_the_others(rank: int, size: int, folder: Path) -> str:
    """Return what the first rank is told that watches as if all did."""
    said = ""
    if rank == 0:
        arrival.ARRIVAL_SECONDS = 0.1
        try:
            train(DistributedDataParallel(built(Plain)), rank, size, watching=watching(rank, size, folder, "lonely"))
        except ValueError as error:
            said = str(error)
        arrival.ARRIVAL_SECONDS = 300.0
    else:
        DistributedDataParallel(built(Plain))
    dist.barrier()
    return said


def alone(rank: int, size: int, folder: Path) -> str:
    """Watch on the first rank alone."""
    model = DistributedDataParallel(built(Plain))
    options = watching(rank, size, folder, "alone", ranks="this") if rank == 0 else None
    return str(getattr(train(model, rank, size, watching=options)[1], "path", ""))


def two_ranks(rank: int, size: int, folder: Path) -> dict[str, Any]:
    """Everything that two ranks are tested on, in one pair of processes."""
    every_metric = {"probes": ["full", "hessian", "grad", "ggn", "fisher"], "every": NUM_STEPS}
    return {
        "refused": refused(rank, size, folder),
        "neutral": with_and_without(rank, size, folder, list(WRAPPED)),
        "ddp": measured(rank, size, folder, "ddp", **every_metric),
        "fsdp": measured(rank, size, folder, "fsdp", **every_metric),
        "failing": with_failing_helper(rank, size, folder),
        "rough": without_second_derivative(rank, size, folder),
        "budget": with_budget(rank, size, folder),
        "closing": closing_early(rank, size, folder),
        "lonely": without_the_others(rank, size, folder),
        "alone": alone(rank, size, folder),
    }


def four_ranks(rank: int, size: int, folder: Path) -> dict[str, Any]:
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts"))
    hybrid, _ = train(sharded(Net, mesh=mesh), rank, size, watching=None)
    seen, watch = train(sharded(Net, mesh=mesh), rank, size, watching=watching(rank, size, folder, "hybrid"))
    return {
        "neutral": with_and_without(rank, size, folder, ["ddp"]),
        "hybrid": {"same": same(hybrid, seen), "path": str(watch.path)},
        "ddp": measured(rank, size, folder, "ddp", probes=["default", *SOME], every=NUM_STEPS),
    }


def killed(victim: int, rank: int, size: int, folder: Path) -> None:
    """Lose a rank to `kill -9` in the middle of training: in its part of a measurement if it is not the first."""
    armed = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if armed and rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return F.cross_entropy(outputs, targets)

    x, y = data()
    model = DistributedDataParallel(built(Plain))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with tv.watch(model, optimizer, loss=loss, **watching(rank, size, folder, f"killed-{victim}")) as run:
        for step in range(100):
            run.log(seen=step)
            if step == 2:
                run._writer.flush()
                armed.append(True)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


def second_killed(rank: int, size: int, folder: Path) -> None:
    killed(1, rank, size, folder)


def first_killed(rank: int, size: int, folder: Path) -> None:
    killed(0, rank, size, folder)
