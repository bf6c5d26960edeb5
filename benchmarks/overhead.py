"""What watching costs: the same training, watched and unwatched, in turns.

Blocks of steps of an unwatched and a watched twin alternate in one process, so that whatever else the
machine does hits both. The ratio is taken within each pair of blocks. With the schedule alone a block is as
long as the longest interval, so that each holds every due measurement the same number of times. Under a
budget measurements come when they can be paid: there the figure is over all blocks together.

    python benchmarks/overhead.py [--repeats 5] [--quick]
"""

from __future__ import annotations

import argparse
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
import trainvitals.probes.watch as watch_module

SETTINGS = (("light", None), ("default", None), ("full", None), ("default", "5%"))  # preset, budget
BLOCK_STEPS = 500  # the longest interval of any diagnostic
BUDGET_REPEATS = 8  # times as many blocks under a budget: the first measurement has to be paid back


@dataclass
class Workload:
    name: str
    make: Callable[[], nn.Module]
    batch_size: int


WORKLOADS = [
    Workload("MLP 64-256-256-10", lambda: nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)), 64),
    Workload("CNN 16-32 on digits", lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)), 128),
]  # fmt: skip


class OwnTime:
    """A clock that stands still while the unwatched twin trains: a budget is a share of the watched run's time."""

    time = staticmethod(time.time)

    def __init__(self) -> None:
        self._away = 0.0
        self._left: float | None = None

    def perf_counter(self) -> float:
        return time.perf_counter() - self._away

    def leave(self) -> None:
        self._left = time.perf_counter()

    def come_back(self) -> None:
        self._away += time.perf_counter() - (self._left or time.perf_counter())


class Training:
    """One model in training, a block of steps at a time."""

    def __init__(self, workload: Workload, x: Tensor, y: Tensor) -> None:
        torch.manual_seed(0)
        self.model = workload.make()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9)
        self.x, self.y, self.batch_size = x, y, workload.batch_size
        self.generator = torch.Generator().manual_seed(1)

    def block(self, num_steps: int) -> float:
        """Train this many steps and return the seconds they took."""
        started = time.perf_counter()
        for _ in range(num_steps):
            rows = torch.randint(len(self.x), (self.batch_size,), generator=self.generator)
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.x[rows]), self.y[rows]).backward()
            self.optimizer.step()
        return time.perf_counter() - started


def compare(workload: Workload, preset: str, budget: str | None, repeats: int, num_steps: int) -> dict:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16).float(), torch.tensor(labels)
    plain, watched = Training(workload, x, y), Training(workload, x, y)
    plain.block(50), watched.block(50)  # warm caches
    pairs, clock = [], OwnTime()
    watch_module.time = clock  # pyright: ignore[reportAttributeAccessIssue]
    with tempfile.TemporaryDirectory() as folder, tv.watch(
        watched.model, watched.optimizer, loss=F.cross_entropy, train=(x[:256], y[:256]), heldout=(x[-256:], y[-256:]),
        store=folder, probes=preset, budget=budget,
    ):  # fmt: skip
        for repeat in range(repeats):
            seconds = {}
            for training in (plain, watched) if repeat % 2 else (watched, plain):
                if training is plain:
                    clock.leave()
                seconds[training] = training.block(num_steps)
                if training is plain:
                    clock.come_back()
            pairs.append((seconds[plain], seconds[watched]))
    overheads = [100 * (b / a - 1) for a, b in pairs]
    overall = 100 * (sum(b for _, b in pairs) / sum(a for a, _ in pairs) - 1)
    return {
        "workload": workload.name, "preset": preset, "budget": budget or "none",
        "unwatched ms/step": spread([1e3 * a / num_steps for a, _ in pairs]),
        "watched ms/step": spread([1e3 * b / num_steps for _, b in pairs]),
        "overhead %": spread(overheads) if budget is None else f"{overall:.3g} over all blocks",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="pairs of blocks for each row")
    parser.add_argument("--quick", action="store_true", help="one pair a row, for a test of the script")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeats = 1 if arguments.quick else arguments.repeats
    rows = [
        compare(workload, preset, budget, repeats * (BUDGET_REPEATS if budget else 1), BLOCK_STEPS)
        for workload in WORKLOADS
        for preset, budget in SETTINGS
    ]
    notes = [
        f"Each diagnostic at its own interval, probes of 256 + 256 samples, {repeats} pairs of {BLOCK_STEPS} steps "
        f"({repeats * BUDGET_REPEATS} under a budget); median (smallest–largest).",
        "Budget none: the schedule alone sets the price, on steps of a few milliseconds. The measurement of step 0 "
        "is taken before the first block; under a budget it is owed and paid back during the blocks.",
    ]
    write("overhead", "Watched against unwatched training", rows, notes)


if __name__ == "__main__":
    main()
