"""What watching costs under a budget: the same training, watched and unwatched, in turns.

Blocks of steps of an unwatched and a watched twin alternate in one process, so that whatever else the machine does
hits both; the watched run's clock stands still while the other trains, for a budget is a share of its own time. Four
workloads of about 2, 10, 60 and 500 ms a step, each with budgets of 1, 5 and 20 % and the default metrics.

    python benchmarks/overhead.py [--minutes 1] [--five] [--workloads 0 1 2 3]

`--minutes` is the watched time of each row; the unwatched twin takes as much again. 12 rows of half a minute take
about 13 minutes, the start included. `--five` adds the test of the promise: five minutes at 5 % on each workload, with
the number of points of every default metric (another 40 minutes).
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from report import spread, write
from sklearn.datasets import load_digits
from torch import Tensor, nn

import trainvitals as tv
from trainvitals.diagnostics.registry import select

BUDGETS = ("1%", "5%", "20%")
BLOCK_SECONDS = 1.0  # of each twin, at least one step
NUM_GROUPS = 5  # of blocks that follow each other: the spread is that of their overheads


@dataclass
class Workload:
    name: str
    make: Callable[[], nn.Module]
    batch_size: int
    probe_size: int


def dense(*widths: int) -> nn.Module:
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def convolutional(first: int, second: int) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, first, 3, padding=1), nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * second, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


WORKLOADS = [  # probes are a part of a batch where steps take long: on a machine of one core a Hessian is dear
    Workload("MLP 64-256-256-10, batch 256", lambda: dense(64, 256, 256, 10), 256, 64),
    Workload("CNN 16-32, batch 256", lambda: convolutional(16, 32), 256, 64),
    Workload("CNN 32-64, batch 640", lambda: convolutional(32, 64), 640, 64),
    Workload("CNN 32-64, batch 5120", lambda: convolutional(32, 64), 5120, 64),
]


class OwnTime:
    """A clock that stands still while the unwatched twin trains. Put in the place of `time.perf_counter`."""

    def __init__(self) -> None:
        self._true = time.perf_counter
        self._away, self._left = 0.0, None

    def __call__(self) -> float:
        return self._true() - self._away if self._left is None else self._left

    def leave(self) -> None:
        self._left = self()

    def come_back(self) -> None:
        assert self._left is not None
        self._away, self._left = self._true() - self._left, None

    def true(self) -> float:
        return self._true()


class Training:
    """One model in training, a block of steps at a time."""

    def __init__(self, workload: Workload) -> None:
        images, labels = load_digits(return_X_y=True)
        self.x, self.y = torch.tensor(images / 16).float(), torch.tensor(labels)
        torch.manual_seed(0)
        self.model = workload.make()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9)
        self.batch_size, self.probe_size = workload.batch_size, workload.probe_size
        self.generator = torch.Generator().manual_seed(1)

    @property
    def probes(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {"train": (self.x[: self.probe_size], self.y[: self.probe_size]),
                "heldout": (self.x[-self.probe_size :], self.y[-self.probe_size :])}  # fmt: skip

    def block(self, num_steps: int, clock: Callable[[], float]) -> float:
        """Train this many steps and return the seconds they took."""
        started = clock()
        for _ in range(num_steps):
            rows = torch.randint(len(self.x), (self.batch_size,), generator=self.generator)
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.x[rows]), self.y[rows]).backward()
            self.optimizer.step()
        return clock() - started


def compare(workload: Workload, budget: str, seconds: float) -> dict:
    """Train both twins until the watched one has taken so many seconds."""
    plain, watched, clock = Training(workload), Training(workload), OwnTime()
    for twin in (plain, watched):
        twin.block(3, clock.true)  # warm caches
    num_steps = max(1, round(BLOCK_SECONDS / max(plain.block(3, clock.true) / 3, 1e-6)))
    before, time.perf_counter = time.perf_counter, clock
    pairs: list[tuple[float, float]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            started = clock()
            with tv.watch(watched.model, watched.optimizer, loss=F.cross_entropy, **watched.probes, store=folder,
                          budget=budget) as run:  # fmt: skip
                at_start = clock() - started
                while sum(b for _, b in pairs) < seconds:
                    order = (plain, watched) if len(pairs) % 2 else (watched, plain)
                    taken = {}
                    for twin in order:
                        if twin is plain:
                            clock.leave()
                        taken[twin] = twin.block(num_steps, clock.true)
                        if twin is plain:
                            clock.come_back()
                    pairs.append((taken[plain], taken[watched]))
            with tv.open_run(run.id, store=folder) as read:
                return row_of(workload, budget, pairs, num_steps, at_start, read)
    finally:
        time.perf_counter = before


def row_of(workload: Workload, budget: str, pairs: list, num_steps: int, at_start: float, run: tv.Run) -> dict:
    groups = [pairs[i::NUM_GROUPS] for i in range(min(NUM_GROUPS, len(pairs)))]
    shares = [100 * (1 - sum(a for a, _ in group) / sum(b for _, b in group)) for group in groups]
    plain, watched = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    names = {d.name: next(iter(d.descriptions())) for d in select("default")}
    known = set(run.names())
    points = {name: run.spent(first)[1] if first in known else 0 for name, first in names.items()}
    fewest = min(points, key=lambda name: points[name])
    return {
        "workload": workload.name, "budget": budget,
        "unwatched ms/step": spread([1e3 * a / num_steps for a, _ in pairs]),
        "measured share %": f"{100 * (1 - plain / watched):.3g} ({min(shares):.3g}–{max(shares):.3g})",
        "before the first step, s": f"{at_start:.2g}",
        "the run says %": f"{100 * run.series('probe.share')['value'].iloc[-1]:.3g}",
        "its last minute %": f"{100 * run.series('probe.share_of_last_minute')['value'].iloc[-1]:.3g}",
        "fewest points": f"{points[fewest]} ({fewest})",
        "default metrics with 20 points": f"{sum(n >= 20 for n in points.values())} of {len(points)}",
        "watched s": f"{watched:.0f}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=0.5, help="watched time of each row")
    parser.add_argument("--five", action="store_true", help="five minutes at 5 %% on each workload as well")
    parser.add_argument("--workloads", type=int, nargs="*", default=range(len(WORKLOADS)), help="which of the four")
    parser.add_argument("--quick", action="store_true", help="a few seconds of one row, nothing written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.quick:
        print(compare(WORKLOADS[0], "5%", 3.0))
        return
    asked = [(WORKLOADS[i], budget, 60 * arguments.minutes) for i in arguments.workloads for budget in BUDGETS]
    asked += [(WORKLOADS[i], "5%", 300.0) for i in arguments.workloads] if arguments.five else []
    rows = []
    for workload, budget, seconds in asked:
        rows.append(compare(workload, budget, seconds))
        print(rows[-1], flush=True)
    notes = [
        f"Blocks of about {BLOCK_SECONDS:.0f} s of an unwatched and a watched twin in turns, default metrics, probes "
        f"of 64 + 64 samples. Measured share: watched time that the unwatched twin does not need (smallest–"
        f"largest of {NUM_GROUPS} interleaved groups of blocks). Measuring before the first step is given apart; the "
        "run's own figures hold it. In rows shorter than a minute the first minute's share may be spent at once.",
    ]
    write("overhead", "Watched against unwatched training, under a budget", rows, notes)


if __name__ == "__main__":
    main()
