"""What only TrainVitals is asked: long series, many runs, a steady load. `benchmarks/store.py` starts it.

Each function returns numbers by name. Long series are made by the writer's own chunking, without a
trainer; a list of runs is made of copies of one run with other ids.
"""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from trainvitals.run import list_runs, open_run
from trainvitals.schema import Record
from trainvitals.store.catalogue import FILE, update
from trainvitals.store.codec import Points
from trainvitals.store.compaction import add_points
from trainvitals.store.opening import editing
from trainvitals.store.rows import Rows
from trainvitals.store.writer import RunWriter

MAX_POINTS = 1000
PART = 1024 * 512


def long_run(folder: Path, num_points: int) -> Path:
    """Make a run with one series of random numbers."""
    with RunWriter.create(folder, "long", {}, {}) as writer:
        writer.append(Record(0, 1e9, {}, {"loss": 0.0}))
    rng = np.random.default_rng(0)
    with editing(writer.path) as rows:
        for first in range(1, num_points, PART):
            at = np.arange(first, min(first + PART, num_points))
            add_points(rows, 1, Points(at, at, 1e9 + at / 1000, rng.normal(size=len(at))))
    return writer.path


def overview(folder: Path, num_points: int, repeats: int) -> dict[str, float]:
    """Return how long an overview of 1,000 points takes: warm, and the first one in a new process."""
    path = long_run(folder, num_points)
    run, taken, cpu = open_run(path), [], []
    for _ in range(repeats + 1):
        start, start_cpu = time.perf_counter(), time.process_time()
        table = run.series("loss", max_points=MAX_POINTS)
        taken.append(1e3 * (time.perf_counter() - start))
        cpu.append(1e3 * (time.process_time() - start_cpu))
    if not (100 < len(table) <= MAX_POINTS and table["step"].iloc[-1] == num_points - 1):
        raise RuntimeError(f"expected an overview of the whole series, got {len(table)} points")
    num_bytes = path.stat().st_size
    path.unlink()
    return {
        "num_points": num_points, "num_shown": len(table), "warm_ms": statistics.median(taken[1:]),
        "warm_max_ms": max(taken[1:]), "cpu_ms": statistics.median(cpu[1:]),
        "bytes_per_point": num_bytes / num_points,
    }  # fmt: skip


def many_runs(folder: Path, num_runs: int) -> None:
    """Fill a folder with runs that have ended."""
    with RunWriter.create(folder, "one", {"command": ["train.py"], "probes": {"hessian.top": "every 100"}}, {}) as one:
        for step in range(2000):
            one.append(Record(step, 1e9 + step, {}, {"loss": 1 / (step + 1)}))
    for number in range(num_runs - 1):
        copy = folder / f"run-{number:05}.sqlite"
        shutil.copy(one.path, copy)
        connection = sqlite3.connect(copy, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        Rows(connection).put("header", ("id", f'"run-{number:05}"'))
        connection.close()


LIST_ONCE = """
import sys, time
from trainvitals.run import list_runs
wall, cpu = time.perf_counter(), time.process_time()
runs = list_runs(sys.argv[1])
assert all(run.problem is None for run in runs)
print(len(runs), 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu))
"""


def listing(folder: Path, num_runs: int, repeats: int) -> dict[str, list[float]]:
    """Return milliseconds (wall and CPU) of a list: in new processes with and without the catalogue, and again."""
    many_runs(folder, num_runs)
    found: dict[str, list[float]] = {"without_ms": [], "with_ms": [], "with_cpu_ms": [], "again_ms": []}
    for _ in range(repeats):
        (folder / FILE).unlink(missing_ok=True)
        found["without_ms"].append(_list_once(folder, num_runs)[0])
        update(folder)
        wall, cpu = _list_once(folder, num_runs)
        found["with_ms"].append(wall)
        found["with_cpu_ms"].append(cpu)
    list_runs(folder)
    for _ in range(repeats):
        start = time.perf_counter()
        list_runs(folder)
        found["again_ms"].append(1e3 * (time.perf_counter() - start))
    return found


def _list_once(folder: Path, num_runs: int) -> tuple[float, float]:
    done = subprocess.run([sys.executable, "-c", LIST_ONCE, str(folder)], capture_output=True, text=True, check=True)
    number, wall, cpu = done.stdout.split()
    if int(number) != num_runs:
        raise RuntimeError(f"expected {num_runs} runs, got {number}")
    return float(wall), float(cpu)


def steady_load(folder: Path, num_scalars: int, steps_per_second: int, seconds: float) -> dict[str, float]:
    """Return the share of a core that saving takes at a steady rate: all of the process, less the empty loop."""
    names = [f"scalar_{i}" for i in range(num_scalars)]
    row = np.random.default_rng(0).normal(size=num_scalars).tolist()
    values = dict(zip(names, row, strict=True))
    with RunWriter.create(folder, "steady", {}, {}) as writer:
        idle = _cpu_share(lambda step: None, steps_per_second, seconds)
        busy = _cpu_share(lambda step: writer.append(Record(step, 1e9, {}, values)), steps_per_second, seconds)
    if writer.num_dropped:
        raise RuntimeError(f"expected no drops, got {writer.num_dropped}")
    return {"num_scalars": num_scalars, "points_per_second": num_scalars * steps_per_second,
            "percent_of_a_core": 100 * (busy - idle)}  # fmt: skip


def _cpu_share(log: object, steps_per_second: int, seconds: float) -> float:
    """Call `log` at a steady rate, in bursts of 10 ms, and return the CPU time of the process per second."""
    burst, step = steps_per_second // 100, 0
    start, cpu = time.perf_counter(), time.process_time()
    for tick in range(int(seconds * 100)):
        for _ in range(burst):
            log(step)  # type: ignore[operator]
            step += 1
        threading.Event().wait(max(0.0, start + (tick + 1) / 100 - time.perf_counter()))
    return (time.process_time() - cpu) / (time.perf_counter() - start)
