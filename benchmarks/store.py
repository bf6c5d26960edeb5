"""The store against trackio, TensorBoard, MLflow on SQLite and W&B offline, and at scale.

    python benchmarks/store.py --peers-python /path/to/python   # a Python that has trackio, mlflow and wandb
    python benchmarks/store.py --repeats 1 --steps 5000 --no-scale --no-save

Each repeat runs every system in a process of its own, in alternating order, on the same numbers: ten
scalars a step. Measured are the time that logging a step takes on the training thread with work
between two steps, how many points a second are saved when nothing else is done, the CPU time of that,
bytes a point after close, and the time to read one series back. MLflow and W&B get fewer steps: they
take longer. A system that is not installed is left out with a word.

Then TrainVitals alone: an overview of one series of 1e5 to 1e8 points (0.8 GB in a temporary folder,
removed after), a list of 2,000 runs, and the share of a core at 100,000 points a second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import store_scale
from store_systems import NUM_SCALARS, OURS, SYSTEMS

WORKER = Path(__file__).with_name("store_worker.py")
UNITS = {
    "step_p50_us": "ten scalars a step on the training thread, p50 (µs)",
    "step_p99_us": "ten scalars a step on the training thread, p99 (µs)",
    "points_per_second": "saved, free-running (points/s)",
    "cpu_us_per_point": "CPU time of that (µs a point)",
    "bytes_per_point": "on disk after close (bytes a point)",
    "begin_and_end_ms": "beginning a run and closing it (ms)",
    "read_ms": "one series read back (ms)",
}
FEWER_STEPS = {"mlflow_system": 200, "wandb_system": 5_000}
LENGTHS = (10**5, 10**6, 10**7, 10**8)


def run_worker(module: str, python: str, num_steps: int, num_paced: int, seed: int) -> dict[str, Any] | str:
    """Return what a system measured, or why it could not."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parent)}
    steps = min(num_steps, FEWER_STEPS.get(module, num_steps))
    command = [python, str(WORKER), module, str(steps), str(min(num_paced, steps)), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"version"')]  # peers talk, at exit too
    if done.returncode == 0 and lines:
        return {**json.loads(lines[-1]), "num_steps": steps}
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def side_by_side(options: argparse.Namespace) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Return the measurements of every system, and those that could not be measured with the reason."""
    measured: dict[str, list[dict[str, Any]]] = {}
    left_out: dict[str, str] = {}
    for repeat in range(options.repeats):
        modules = list(SYSTEMS) if repeat % 2 == 0 else list(SYSTEMS)[::-1]
        for module in modules:
            name, is_peer = SYSTEMS[module]
            if name in left_out:
                continue
            found = run_worker(module, options.peers_python if is_peer else sys.executable, options.steps,
                               options.paced, repeat)  # fmt: skip
            if isinstance(found, str):
                left_out[name] = found
            else:
                measured.setdefault(name, []).append(found)
            print(f"repeat {repeat + 1} of {options.repeats}: {name} {'left out' if name in left_out else 'done'}",
                  flush=True)  # fmt: skip
    return measured, left_out


def rows_of(measured: dict[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """Return the table: a row a quantity, a column a system."""
    names = [name for name, _ in SYSTEMS.values() if name in measured]
    rows = []
    for key, words in UNITS.items():
        cells = {}
        for name in names:
            values = [found[key] for found in measured[name]]
            cells[name] = "no reader" if None in values else report.spread(values)
        rows.append({"measured": words, **cells})
    return rows


def scale_rows(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Return the lines of what is asked of TrainVitals alone, with the goals beside them, and the raw numbers."""
    rows, raw = [], {}
    for length in LENGTHS if options.longest is None else [n for n in LENGTHS if n <= options.longest]:
        raw[f"overview_{length}"] = one = store_scale.overview(folder / "long", length, 7)
        rows.append({"measured": f"overview of a series of {length:.0e} points, warm (ms)",
                     "found": f"{one['warm_ms']:.1f} (≤ {one['warm_max_ms']:.1f}); CPU {one['cpu_ms']:.1f}; "
                     f"{one['num_shown']} points shown; {one['bytes_per_point']:.2f} bytes a point",
                     "goal": "100; less than twice that of 1e5"})  # fmt: skip
        print(rows[-1], flush=True)
    raw["listing"] = lists = store_scale.listing(folder / "many", options.runs, 3)
    for key, words in (("with_ms", "in a new process"), ("with_cpu_ms", "in a new process, CPU time"),
                       ("again_ms", "again"), ("without_ms", "in a new process, without the catalogue")):  # fmt: skip
        goal = "200" if key.startswith("with_") else "none"
        rows.append({"measured": f"list of {options.runs:,} runs {words} (ms)", "found": report.spread(lists[key]),
                     "goal": goal})  # fmt: skip
        print(rows[-1], flush=True)
    raw["steady"] = []
    for num_scalars, rate in ((100, 1_000), (10, 10_000)):
        loads = [store_scale.steady_load(folder / "steady", num_scalars, rate, 10.0) for _ in range(3)]
        raw["steady"].append(loads)
        rows.append({"measured": f"saving 100,000 points/s as {rate:,} steps/s of {num_scalars} scalars (% of a core)",
                     "found": report.spread([load["percent_of_a_core"] for load in loads]), "goal": "3"})  # fmt: skip
        print(rows[-1], flush=True)
    return rows, raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="steps of ten scalars, free-running (default 20000)")
    parser.add_argument("--paced", type=int, default=2_000, help="steps with work between them (default 2000)")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each system (default 5)")
    parser.add_argument("--peers-python", default=sys.executable, help="Python that has trackio, mlflow and wandb")
    parser.add_argument("--no-scale", action="store_true", help="leave out long series, many runs and steady load")
    parser.add_argument("--longest", type=int, help="longest series for the overview (default 100000000)")
    parser.add_argument("--runs", type=int, default=2_000, help="runs in a list (default 2000)")
    parser.add_argument("--no-save", action="store_true", help="print only, leave benchmarks/results as it is")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    measured, left_out = side_by_side(options)
    rows, scale, raw_scale = rows_of(measured), [], {}
    print(report.table(rows), flush=True)
    if not options.no_scale:
        with tempfile.TemporaryDirectory() as folder:
            scale, raw_scale = scale_rows(Path(folder), options)
    notes = notes_of(options, measured, left_out, load)
    if scale:
        notes = ["## At scale", report.table(scale), *notes]
    if options.no_save:
        print("\n\n".join(notes))
        return
    report.write("store", "Store: TrainVitals beside its peers, and at scale", rows, notes,
                 {"side by side": measured, "scale": raw_scale})  # fmt: skip


def notes_of(options: argparse.Namespace, measured: dict[str, list[dict[str, Any]]], left_out: dict[str, str],
             load: float) -> list[str]:  # fmt: skip
    versions = ", ".join(f"{name} {found[0]['version']}" for name, found in measured.items() if name != OURS)
    steps = ", ".join(f"{name} {found[0]['num_steps']:,}" for name, found in measured.items())
    p99 = [found["step_p99_us"] for found in measured.get("TrainVitals", [])]
    notes = [
        f"Median over {options.repeats} interleaved repeats (smallest–largest), each system in a process of its own. "
        f"Steps of {NUM_SCALARS} scalars, free-running: {steps}; {options.paced:,} of them with work between two for "
        "the first two rows.",
        "TrainVitals keeps float64 and waits for the disk (fsync) in the background; MLflow commits every step; "
        "TensorBoard keeps float32 and hands its file to the operating system; trackio and W&B wait in their queue "
        "and are saved when the run ends, which is in their points a second.",
        "CPU time is that of the process that trains; W&B's service is another process and not in it.",
        "Goals: p50 5 µs, p99 50 µs, 1,000,000 points/s, 16 bytes a point. Beginning and closing a run is slower "
        "than TensorBoard's: a file is made whole, synchronised and compacted.",
        f"The machine was shared with other work: {load:.1f} runnable processes on average before the start. "
        f"The p99 of TrainVitals was {statistics.median(p99):.0f} µs." if p99 else "",
        *(f"{name} was left out: {reason}" for name, reason in left_out.items()),
        f"{versions}. Again: `python benchmarks/store.py --peers-python PYTHON`.",
    ]
    return [note for note in notes if note]


if __name__ == "__main__":
    main()
