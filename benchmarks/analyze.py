"""How much faster two processes analyse a folder of checkpoints than one, and whether the numbers are the same.

`python benchmarks/analyze.py [--checkpoints 60] [--repeats 3]` trains a small network, saves checkpoints, and analyses
them with one and with two processes of one thread each, by turns, each time as a run of its own. Starting the
processes is a part of the time. The goal is 1.7 on two idle cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

import trainvitals as tv
from trainvitals.checkpoints.executor import local_pool

WHAT = ["default", "hessian.density", "hessian.tracked", "cka", "weights.spectral"]
GOAL = 1.7
RESULTS = Path(__file__).parent / "results"


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


def probe(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(512) % 10
    means = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    return means[y] + 2.0 * torch.randn(512, 64, generator=generator), y


def save_checkpoints(folder: Path, num: int) -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = probe()
    for i in range(num):
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 5 * i}
        torch.save(copy.deepcopy(state), folder / f"step_{5 * i}.pt")
        for _ in range(5):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()


def seconds_with(num_processes: int, folder: Path, store: Path) -> tuple[float, tv.Run]:
    """Return how long an analysis takes with a pool of that many processes, their start included."""
    started = time.perf_counter()
    with local_pool(num_processes) as pool:
        run = tv.analyze(
            folder, build=build, batch=probe(1), heldout=probe(2), loss=loss, what=WHAT, store=store,
            name=f"{num_processes} processes", executor=pool, workers=num_processes, resume=False,
        )  # fmt: skip
    return time.perf_counter() - started, run


def largest_difference(one: tv.Run, other: tv.Run) -> float:
    """Return the largest difference of any number, relative to the largest of its metric."""
    worst = 0.0
    for name in one.names():
        left, right = (run.series(name).sort_values(["step", "key"])["value"].to_numpy() for run in (one, other))
        if len(left):
            worst = max(worst, float(abs(left - right).max() / max(abs(left).max(), 1e-12)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    times: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoints"
        folder.mkdir()
        save_checkpoints(folder, options.checkpoints)
        runs = {}
        for _ in range(options.repeats):
            for num in times:
                seconds, runs[num] = seconds_with(num, folder, Path(scratch) / "runs")
                times[num].append(seconds)
                print(f"{num} process{'es' if num > 1 else ''}: {seconds:.1f} s", flush=True)
        difference = largest_difference(runs[1], runs[2])
    ratios = [one / two for one, two in zip(times[1], times[2], strict=True)]
    found = {
        "checkpoints": options.checkpoints, "what": WHAT, "seconds": {str(num): t for num, t in times.items()},
        "speedup": statistics.median(ratios), "speedups": ratios, "largest_relative_difference": difference,
        "load_average": os.getloadavg(), "cores": os.cpu_count(), "torch": torch.__version__,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "analyze.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"speed-up {found['speedup']:.2f} (goal {GOAL}), of {', '.join(f'{r:.2f}' for r in ratios)}; "
          f"largest relative difference {difference:.1e}; load {found['load_average'][0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
