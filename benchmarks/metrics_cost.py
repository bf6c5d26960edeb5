"""What each metric costs, and what each preset adds to training on a fixed schedule.

Presets: blocks of steps of an unwatched and a watched twin alternate in one process, so that whatever else the
machine does hits both. Counted is the CPU time of the whole process, the writer's thread included; on an idle machine
that is the wall time or more. Metrics: each is measured alone, and its CPU time is given in steps of training.

    python benchmarks/metrics_cost.py [--pairs 16] [--quick] [--presets-only]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from curvature_models import DigitTransformer
from report import spread, write
from sklearn.datasets import load_digits
from torch import Tensor, nn

import trainvitals as tv
from trainvitals.diagnostics.base import Diagnostic, Needs, Tier
from trainvitals.diagnostics.registry import registered, select
from trainvitals.probes.gradients import TrajectoryRecorder
from trainvitals.probes.measure import take_readings
from trainvitals.probes.optimizer_view import names_of_parameters
from trainvitals.probes.product_choice import products_of
from trainvitals.probes.subject import Subject, make_subject
from trainvitals.schema import Reading

BATCH = 128  # of training; each probe is one such batch
PRESETS = (  # preset, every, steps of a block, most of the training time that it is to cost in percent
    ("light", 1, 50, 5), ("default", None, 100, 8), ("full", 50, 50, 25),
)  # fmt: skip
NUM_GROUPS = 5  # of blocks that follow each other: the spread is that of their shares


@dataclass(frozen=True)
class Workload:
    name: str
    make: Callable[[], nn.Module]
    is_judged: bool = False  # whether the presets are to keep to their shares on it


def convolutional(first: int, second: int) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, first, 3, padding=1), nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * second, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


WORKLOADS = [
    Workload("digits CNN 32-64", lambda: convolutional(32, 64), is_judged=True),
    Workload("digits CNN 16-32", lambda: convolutional(16, 32)),
    Workload("MLP 64-256-256-10", lambda: nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))),
    Workload("transformer, 2 layers of width 32", lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), DigitTransformer(32, 2))),
]  # fmt: skip
OF_METRICS = (WORKLOADS[0], WORKLOADS[2], WORKLOADS[3])


class Training:
    """One model in training on the digits, a block of steps at a time."""

    def __init__(self, workload: Workload) -> None:
        images, labels = load_digits(return_X_y=True)
        self.x, self.y = torch.tensor(images / 16).float(), torch.tensor(labels)
        torch.manual_seed(0)
        self.model = workload.make()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9)
        self.generator = torch.Generator().manual_seed(1)

    @property
    def probes(self) -> dict[str, tuple[Tensor, Tensor]]:
        """A probe of the size of one batch from each end of the data."""
        return {"train": (self.x[:BATCH], self.y[:BATCH]), "heldout": (self.x[-BATCH:], self.y[-BATCH:])}

    def block(self, num_steps: int) -> float:
        """Train this many steps and return the CPU seconds that the process took meanwhile."""
        started = time.process_time()
        for _ in range(num_steps):
            rows = torch.randint(len(self.x), (BATCH,), generator=self.generator)
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.x[rows]), self.y[rows]).backward()
            self.optimizer.step()
        return time.process_time() - started


# Presets ------------------------------------------------------------------------------------------


def preset_row(workload: Workload, preset: str, every: int | None, block: int, target: int, pairs: int) -> dict:
    plain, watched = Training(workload), Training(workload)
    found: list[tuple[float, float]] = []
    what = [diagnostic.name for diagnostic in select(preset) if not diagnostic.is_dear()]
    with tempfile.TemporaryDirectory() as folder, tv.watch(
        watched.model, watched.optimizer, loss=F.cross_entropy, **watched.probes, store=folder, probes=what,
        every=every, budget=None,
    ):  # fmt: skip
        plain.block(block), watched.block(block)  # caches, and the first measurements that are dearer
        for index in range(pairs):
            order = (plain, watched) if index % 2 else (watched, plain)
            seconds = {training: training.block(block) for training in order}
            found.append((seconds[plain], seconds[watched]))
    groups = [found[i::NUM_GROUPS] for i in range(min(NUM_GROUPS, len(found)))]
    shares = [100 * (sum(b for _, b in group) / sum(a for a, _ in group) - 1) for group in groups]
    return {
        "workload": workload.name, "preset": preset, "every": every or "each its own",
        "CPU ms/step": spread([1e3 * a / block for a, _ in found]), "added %": spread(shares),
        "target %": f"≤ {target}" if workload.is_judged else "",
    }  # fmt: skip


# Metrics ------------------------------------------------------------------------------------------


@dataclass
class Cost:
    forward: int
    backward: int
    products: int
    steps: float  # of training
    missing: str = ""


def costs(workload: Workload, names: list[str], repeats: int) -> Iterator[tuple[str, Cost]]:
    """Yield the cost of each metric measured alone, after some training."""
    training = Training(workload)
    training.block(100)
    per_step = min(training.block(20) / 20 for _ in range(5))
    subject = make_subject(
        training.model, loss=F.cross_entropy, forward=None, **training.probes, optimizer=training.optimizer, call="cost"
    )
    subject.products = products_of(subject, "auto", None, patience=0)
    subject.initial_parameters = subject.weights_at_start()
    recorder = TrajectoryRecorder(lambda: names_of_parameters(training.model), lambda step: True)
    for step in (1, 2):
        recorder.before_step(training.optimizer, step)
        training.block(1)
        recorder.after_step(training.optimizer, step)
    for name in names:
        diagnostic = registered()[name].configured({})
        if not diagnostic.is_dear():
            take_readings(subject, [diagnostic], step=1, trajectory=lambda: recorder.at(2))  # the first is dearer
        yield name, cost_of(subject, diagnostic, recorder, per_step, 1 if diagnostic.is_dear() else repeats)


def cost_of(
    subject: Subject, diagnostic: Diagnostic, recorder: TrajectoryRecorder, per_step: float, repeats: int
) -> Cost:
    seconds, passes, readings = [], dict(subject.num_passes), {}
    for _ in range(repeats):
        passes, started = dict(subject.num_passes), time.process_time()
        readings = take_readings(subject, [diagnostic], step=2, trajectory=lambda: recorder.at(2))
        seconds.append(time.process_time() - started)
    counted = {kind: subject.num_passes[kind] - passes[kind] for kind in passes}
    return Cost(
        counted["forward"], counted["backward"], max(r.hvps for r in readings.values()),
        statistics.median(seconds) / per_step, _missing(readings),
    )  # fmt: skip


def _missing(readings: dict[str, Reading]) -> str:
    reasons = [reading.missing for reading in readings.values()]
    return str(reasons[0]) if all(reasons) else ""


def metric_rows(names: list[str], repeats: int) -> list[dict[str, Any]]:
    by_model = {workload.name: dict(costs(workload, names, repeats)) for workload in OF_METRICS}
    first = by_model[OF_METRICS[0].name]
    rows = []
    for name in names:
        cls = registered()[name]
        shares = {
            f"{model}, steps": f"{found[name].steps:.2g}" + ("*" if found[name].missing else "")
            for model, found in by_model.items()
        }
        rows.append({
            "metric": name, "preset": str(cls.tier) + (", paced" if cls.is_dear() else ""),
            "forward": first[name].forward, "backward": first[name].backward, "products": first[name].products,
            **shares,
        })  # fmt: skip
    return rows


def chosen(is_quick: bool) -> list[str]:
    """Return the metrics of the presets; quick: those without products."""
    kept = [name for name, cls in registered().items() if cls.tier != Tier.ON_REQUEST]
    return [name for name in kept if not registered()[name].needs & Needs.HVP][:12] if is_quick else kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=16, help="pairs of blocks for each preset")
    parser.add_argument("--quick", action="store_true", help="few pairs and metrics, nothing written: tries the script")
    parser.add_argument("--presets-only", action="store_true", help="leave the table of metrics as it is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pairs = 3 if arguments.quick else arguments.pairs
    workloads = WORKLOADS[:1] if arguments.quick else WORKLOADS[:2]
    presets = [
        preset_row(workload, *preset, max(1, pairs * 50 // preset[2])) for workload in workloads for preset in PRESETS
    ]
    notes = [
        f"What a preset measures on the schedule (budget=None): {pairs} pairs of blocks of 50 steps, half as many of "
        f"100 for `default`, each diagnostic at its own interval; batches of {BATCH}, two probes of {BATCH} samples. "
        f"CPU time of the process, writer's thread included; median (smallest–largest) of {NUM_GROUPS} groups. "
        "The measurement of step 0 is taken before. A preset's dear metrics come on top: a budget paces them, to 5 % "
        "of wall time unless it is told otherwise.",
    ]
    if arguments.quick:
        for row in presets + metric_rows(chosen(True), 1):
            print(row)
        return
    write("presets_cost", "What presets add to training on a fixed schedule", presets, notes)
    if not arguments.presets_only:
        rows = metric_rows(chosen(False), 3)
        notes = [
            "Each metric measured alone, with all the passes that it needs; together they share them. Passes over a "
            "probe in forward and backward direction, and Hessian products, on the first model; CPU time in training "
            f"steps of a batch of {BATCH}, probes of {BATCH} + {BATCH} samples, median of 3 (dear ones: once). "
            "*: missing on this model, the time it took to find out. paced: dear, so that a budget paces it "
            "where a preset brings it.",
        ]
        write("metrics_cost", "What each metric costs", rows, notes)


if __name__ == "__main__":
    main()
