"""The store against TensorBoard's SummaryWriter, side by side and interleaved.

    python benchmarks/store.py                 # about two minutes on two cores
    python benchmarks/store.py --repeats 3 --steps 5000 --no-save

Each repeat runs both systems, in alternating order, on the same numbers: ten scalars a step.
Measured are the time that logging a step takes on the training thread while it trains (a step of
about a millisecond), how many points a second reach the disk when nothing else is done, bytes a point
after close, and the time to read one series back. The table has the median over repeats and the
range; TrainVitals keeps float64 and TensorBoard float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import report
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from trainvitals.run import open_run
from trainvitals.schema import Record
from trainvitals.store.writer import RunWriter

NUM_SCALARS = 10
NAMES = [f"scalar_{i}" for i in range(NUM_SCALARS)]
UNITS = {
    "step_p50_us": "ten scalars a step on the training thread, p50 (µs)",
    "step_p99_us": "ten scalars a step on the training thread, p99 (µs)",
    "points_per_second": "durable ingest, free-running (points/s)",
    "bytes_per_point": "on disk after close (bytes a point)",
    "begin_and_end_ms": "beginning a run and closing it (ms)",
    "read_ms": "one series read back (ms)",
}
MORE_IS_BETTER = {"points_per_second"}


class TrainVitals:
    """One record a step; saved means committed and synchronised with the disk."""

    name = "TrainVitals"

    def __init__(self, folder: Path) -> None:
        self.writer = RunWriter.create(folder, "benchmark", {}, {})

    def log(self, step: int, values: list[float]) -> None:
        """Log one step."""
        self.writer.append(Record(step, time.time(), {}, dict(zip(NAMES, values, strict=True))))

    def flush(self) -> None:
        """Wait until all is saved."""
        if not self.writer.flush(120):
            raise RuntimeError("expected the flush to be done in 120 s")

    def close(self) -> None:
        """End the run."""
        self.writer.close()
        if self.writer.num_dropped:
            raise RuntimeError(f"expected no drops, got {self.writer.num_dropped}")

    def read(self) -> np.ndarray:
        """Return the values of one series."""
        return open_run(self.writer.path).series(NAMES[3]).value.to_numpy()


class TensorBoard:
    """Ten `add_scalar` calls a step; saved means handed to the operating system, which is all it offers."""

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = SummaryWriter(str(folder))

    def log(self, step: int, values: list[float]) -> None:
        """Log one step."""
        for name, value in zip(NAMES, values, strict=True):
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Wait until all is saved."""
        self.writer.flush()

    def close(self) -> None:
        """End the run."""
        self.writer.close()

    def read(self) -> np.ndarray:
        """Return the values of one series."""
        events = EventAccumulator(str(self.folder), size_guidance={"scalars": 0})
        events.Reload()
        return np.array([event.value for event in events.Scalars(NAMES[3])])


def step_times(system: TrainVitals | TensorBoard, values: list[list[float]], work: Callable[[], object]) -> np.ndarray:
    """Return how long each call of `log` took, in microseconds, with a training step between two."""
    taken = np.empty(len(values))
    for step, row in enumerate(values):
        work()
        start = time.perf_counter_ns()
        system.log(step, row)
        taken[step] = (time.perf_counter_ns() - start) / 1e3
    return taken


def ingest_seconds(system: TrainVitals | TensorBoard, values: list[list[float]]) -> float:
    """Return the time to log all steps and have them saved, at full speed."""
    start = time.perf_counter()
    for step, row in enumerate(values):
        system.log(step, row)
        if step % 16_384 == 16_383:
            system.flush()  # a queue that is full drops points by design: wait for the disk instead
    system.flush()
    return time.perf_counter() - start


def measure(make: type[TrainVitals | TensorBoard], num_steps: int, num_paced: int, seed: int) -> dict[str, float]:
    values = np.random.default_rng(seed).normal(size=(num_steps, NUM_SCALARS)).tolist()
    matrix = torch.ones(256, 256)
    with tempfile.TemporaryDirectory() as folder:
        paced = make(Path(folder) / "paced")
        taken = step_times(paced, values[:num_paced], lambda: matrix @ matrix)
        paced.close()
        start = time.perf_counter()
        system = make(Path(folder) / "free")
        begin_seconds = time.perf_counter() - start
        seconds = ingest_seconds(system, values)
        start = time.perf_counter()
        system.close()
        end_seconds = time.perf_counter() - start
        num_bytes = sum(file.stat().st_size for file in (Path(folder) / "free").iterdir())
        start = time.perf_counter()
        back = system.read()
        read_seconds = time.perf_counter() - start
    if not np.array_equal(back.astype(np.float32), np.array(values, np.float32)[:, 3]):
        raise RuntimeError(f"expected every point back in order, got others from {make.name}")
    num_points = num_steps * NUM_SCALARS
    return {
        "step_p50_us": float(np.percentile(taken, 50)), "step_p99_us": float(np.percentile(taken, 99)),
        "points_per_second": num_points / seconds, "bytes_per_point": num_bytes / num_points,
        "begin_and_end_ms": 1e3 * (begin_seconds + end_seconds),
        "read_ms": 1e3 * read_seconds,
    }  # fmt: skip


def row(key: str, measured: dict[str, list[dict[str, float]]]) -> dict[str, str]:
    """Return one line of the table: both systems with their spread, and how they compare."""
    numbers = {name: [run[key] for run in runs] for name, runs in measured.items()}
    ours, theirs = (statistics.median(numbers[system.name]) for system in (TrainVitals, TensorBoard))
    ratio = ours / theirs if key in MORE_IS_BETTER else theirs / ours
    words = f"{ratio:.1f}× better" if ratio >= 1 else f"{1 / ratio:.1f}× worse"
    cells = {name: report.spread(values, 4) for name, values in numbers.items()}
    return {"measured": UNITS[key], **cells, "TrainVitals is": words}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="steps of ten scalars, free-running (default 20000)")
    parser.add_argument("--paced", type=int, default=2_000, help="steps with training between them (default 2000)")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each system (default 5)")
    parser.add_argument("--no-save", action="store_true", help="print only, leave benchmarks/results as it is")
    options = parser.parse_args()
    options.paced = min(options.paced, options.steps)
    load = os.getloadavg()[0]
    systems = [TrainVitals, TensorBoard]
    measured: dict[str, list[dict[str, float]]] = {system.name: [] for system in systems}
    for repeat in range(options.repeats):
        for system in systems if repeat % 2 == 0 else systems[::-1]:
            measured[system.name].append(measure(system, options.steps, options.paced, repeat))
            print(f"repeat {repeat + 1} of {options.repeats}: {system.name} done", flush=True)
    rows = [row(key, measured) for key in UNITS]
    if options.no_save:
        print(report.table(rows))
        return
    notes = [
        f"Median over {options.repeats} interleaved repeats (smallest–largest); {options.steps:,} steps of "
        f"{NUM_SCALARS} scalars, {options.paced:,} of them with a training step between two for the first two rows.",
        "TrainVitals keeps float64 and waits for the disk (fsync); TensorBoard keeps float32 and hands its file to "
        "the operating system.",
        "To give one series TensorBoard's reader loads all ten; that is its only way.",
        f"The machine was shared with other work: {load:.1f} runnable processes on average before the start.",
        f"TensorBoard {version('tensorboard')}. Again: `python benchmarks/store.py`.",
    ]
    report.write("store", "Store: TrainVitals against TensorBoard's SummaryWriter", rows, notes, measured)


if __name__ == "__main__":
    main()
