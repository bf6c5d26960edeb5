"""Measures one system in this process and prints the numbers as JSON: `benchmarks/store.py` starts it.

Nothing of TrainVitals or torch is imported here, so that peers are measured in an environment of their own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from store_systems import NUM_SCALARS, load

FLUSH_STEPS = 16_384  # our queue drops points when it is full, by design: wait for the disk instead


def step_times(system: object, values: list[list[float]]) -> np.ndarray:
    """Return how long each call of `log` took, in microseconds, with about a millisecond of work between two."""
    matrix, taken = np.ones((160, 160)), np.empty(len(values))
    for step, row in enumerate(values):
        matrix @ matrix
        start = time.perf_counter_ns()
        system.log(step, row)  # type: ignore[attr-defined]
        taken[step] = (time.perf_counter_ns() - start) / 1e3
    return taken


def ingest(system: object, values: list[list[float]], may_flush: bool) -> tuple[float, float]:
    """Return the seconds to log all steps and have them saved, and the CPU seconds of the whole process."""
    start, cpu = time.perf_counter(), time.process_time()
    for step, row in enumerate(values):
        system.log(step, row)  # type: ignore[attr-defined]
        if may_flush and step % FLUSH_STEPS == FLUSH_STEPS - 1:
            system.flush()  # type: ignore[attr-defined]
    system.flush()  # type: ignore[attr-defined]
    return time.perf_counter() - start, time.process_time() - cpu


def measure(module: str, num_steps: int, num_paced: int, seed: int) -> dict[str, object]:
    """Return what was measured, by name."""
    loaded = load(module)
    values = np.random.default_rng(seed).normal(size=(num_steps, NUM_SCALARS)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        free = Path(folder) / "free"
        start = time.perf_counter()
        system = loaded.System(free)
        begin_seconds = time.perf_counter() - start
        seconds, cpu_seconds = ingest(system, values, module == "trainvitals_system")
        start = time.perf_counter()
        system.close()
        end_seconds = time.perf_counter() - start
        num_bytes = sum(file.stat().st_size for file in free.rglob("*") if file.is_file())
        start = time.perf_counter()
        back = system.read()
        read_seconds = time.perf_counter() - start
        if back is not None and not np.array_equal(back.astype(np.float32), np.array(values, np.float32)[:, 3]):
            raise RuntimeError(f"expected every point back in order, got others from {module}")
        taken = step_times(loaded.System(Path(folder) / "paced"), values[:num_paced])
    num_points = num_steps * NUM_SCALARS
    return {
        "version": loaded.VERSION,
        "step_p50_us": float(np.percentile(taken, 50)), "step_p99_us": float(np.percentile(taken, 99)),
        "points_per_second": num_points / seconds, "cpu_us_per_point": 1e6 * cpu_seconds / num_points,
        "bytes_per_point": num_bytes / num_points, "begin_and_end_ms": 1e3 * (begin_seconds + end_seconds),
        "read_ms": None if back is None else 1e3 * read_seconds,
    }  # fmt: skip


if __name__ == "__main__":
    found = measure(sys.argv[1], *map(int, sys.argv[2:5]))
    print(f"\n{json.dumps(found)}", flush=True)
