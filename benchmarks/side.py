"""What training pays when all of curvature is measured beside it: `where="side"` against no watch at all, in turns.

Blocks of steps of an unwatched and a watched twin alternate. While the unwatched one trains, the process beside it
stands still (SIGSTOP): so the difference holds the copy of each snapshot and also what two processes take from each
other in caches, memory and clock. Ratios are taken within each pair of blocks. It needs an idle core; the load of
the machine when it began is in the result.

    python benchmarks/side.py [--repeats 15] [--seconds 4] [--quick]
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from overhead import WORKLOADS, OwnTime, Training, Workload
from report import spread, write
from sklearn.datasets import load_digits
from torch import Tensor, nn

import trainvitals as tv
import trainvitals.probes.watch as watch_module

CURVATURE = ["hessian", "ggn", "fisher", "stability", "batch_sharpness", "overlap", "flatness.first_order"]
_STARTING_SECONDS = 180.0  # most that the process may take until it has measured step 0


class PatchTransformer(nn.Module):
    """Four layers over the eight rows of a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 512, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.unflatten(1, (8, 8)))).mean(1))


ALL_WORKLOADS = [*WORKLOADS, Workload("Transformer 4×128 on digits", PatchTransformer, 128)]


@dataclass
class Outcome:
    """What one workload gave."""

    pairs: list[tuple[float, float]]  # seconds of a step, unwatched and watched
    copies: list[float]  # seconds that training paid at each snapshot
    points: int  # of hessian.top
    beside: float  # seconds measured beside training
    dropped: float
    watched_seconds: float


def compare(workload: Workload, repeats: int, seconds: float) -> Outcome:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16).float(), torch.tensor(labels)
    plain, watched = Training(workload, x, y), Training(workload, x, y)
    num_steps = max(5, round(seconds / (plain.block(20) / 20)))
    watched.block(20)
    clock = OwnTime()
    watch_module.time = clock  # pyright: ignore[reportAttributeAccessIssue]
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        with tv.watch(
            watched.model, watched.optimizer, loss=F.cross_entropy, train=(x[:256], y[:256]), store=folder,
            probes=CURVATURE, where=tv.Side(close_seconds=120), heldout=(x[-256:], y[-256:]),
        ) as run:  # fmt: skip
            process = _process_of(run)
            for repeat in range(repeats):
                found: dict[Training, float] = {}
                for training in (plain, watched) if repeat % 2 else (watched, plain):
                    found[training] = _block(training, num_steps, clock if training is plain else None, process.pid)
                pairs.append((found[plain] / num_steps, found[watched] / num_steps))
        with tv.open_run(run.path) as read:
            spent, top = read.series("probe.seconds"), read.series("hessian.top")
            beside = sum(
                group["seconds"].iloc[0]
                for name in read.names() if not name.startswith("probe.")
                for _, group in read.series(name).groupby("step")
            )  # fmt: skip
            dropped = read.series("probe.dropped")["value"].iloc[-1]
    steps = top["step"].nunique()
    return Outcome(pairs, spent["value"].tolist(), steps, beside, dropped, num_steps * sum(b for _, b in pairs))


def _process_of(run: Any) -> psutil.Process:
    """Return the process beside training, once it has begun: its start is no part of the figures."""
    link, stop = run._side._link, time.monotonic() + _STARTING_SECONDS
    while link.num_waiting and time.monotonic() < stop:
        time.sleep(0.1)
    return psutil.Process(link.pid)


def _block(training: Training, num_steps: int, away: OwnTime | None, pid: int) -> float:
    if away is None:
        return training.block(num_steps)
    os.kill(pid, signal.SIGSTOP)
    away.leave()
    try:
        return training.block(num_steps)
    finally:
        away.come_back()
        os.kill(pid, signal.SIGCONT)


def row(workload: Workload, found: Outcome) -> dict[str, Any]:
    overheads = [100 * (b / a - 1) for a, b in found.pairs]
    overall = 100 * (sum(b for _, b in found.pairs) / sum(a for a, _ in found.pairs) - 1)
    return {
        "workload": workload.name,
        "unwatched ms/step": spread([1e3 * a for a, _ in found.pairs]),
        "watched ms/step": spread([1e3 * b for _, b in found.pairs]),
        "slower %": spread(overheads),
        "over all blocks %": f"{overall:.2g}",
        "ms a snapshot": spread([1e3 * seconds for seconds in found.copies]),
        "copies, % of time": f"{100 * sum(found.copies) / found.watched_seconds:.2g}",
        "measurements of λ1": found.points,
        "s measured beside": f"{found.beside:.3g}",
        "not taken": f"{found.dropped:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15, help="pairs of blocks for each row")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a block")
    parser.add_argument("--quick", action="store_true", help="a pair of short blocks, for a test of the script")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeats, seconds = (1, 0.5) if arguments.quick else (arguments.repeats, arguments.seconds)
    load = os.getloadavg()[0]
    rows = [row(workload, compare(workload, repeats, seconds)) for workload in ALL_WORKLOADS]
    notes = [
        f"Probes {', '.join(CURVATURE)} at their own intervals, paced by the default budget of 5 %, of which only the "
        f"copies are paid; 256 + 256 samples; {repeats} pairs of blocks of {seconds:g} s; median "
        "(smallest–largest). One thread each for training and for the process beside it.",
        f"Load of the machine in the minute before: {load:.1f} processes. Above the number of cores less two, the "
        "process beside training had no core of its own.",
        "“not taken”: measurements that were due while the process was busy and could not be made up for.",
    ]
    write("side", "Training with curvature measured beside it", rows, notes)


if __name__ == "__main__":
    main()
