"""The PostgreSQL store under load: eight writers, each with its run file and its shipper, and a reader beside them.

    python benchmarks/store_postgres.py                # about two minutes on two cores
    python benchmarks/store_postgres.py --seconds 5 --writers 2 --no-save

Each writer is a process that logs a hundred scalars a step, as fast as it can or at a given rate, into a run
file; a shipper process beside it sends what the file has to a PostgreSQL server on the same machine. Three
numbers are measured.

Together: points of all writers that are committed in the database, over the time from the first point to
the moment at which the last writer's last point can be read there, the catching up included.

Lag: a reader asks the database again and again for the last step of one run while all are being written at
a steady rate, and compares it with the step that the trainer had logged by its own clock; what is measured
is from the log call to an answer that has the step. Checked: every run is compared with its file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import report

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from postgres_server import Server

from trainvitals.schema import Record, RunSummary
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_connection import close_idle
from trainvitals.store.postgres_source import list_database, opening
from trainvitals.store.reader import RunReader
from trainvitals.store.shipping import Shipper
from trainvitals.store.writer import RunWriter

NUM_SCALARS = 100
GOAL_POINTS_PER_SECOND = 1_000_000
GOAL_LAG_SECONDS = 2.0
SERVER = "shared_buffers = 512MB\nmax_wal_size = 4GB\nfsync = on\nsynchronous_commit = on"

WRITER = """
import json, sys, threading, time
import numpy as np
from trainvitals.schema import Record
from trainvitals.store.shipped_writer import create_writer

address, rank, seconds, rate, num_scalars = json.loads(sys.stdin.readline())
names = [f"scalar_{i}" for i in range(num_scalars)]
values = np.random.default_rng(rank).normal(size=(4096, num_scalars)).astype(np.float32).astype(float)
rows = [dict(zip(names, row, strict=True)) for row in values.tolist()]
writer = create_writer(address, f"rank-{rank}", {}, {})
print(writer.id, flush=True)
sys.stdin.readline()  # all begin together
is_told = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), is_told.set()), daemon=True).start()
started, step = time.time(), 0
while (now := time.time()) - started < seconds and not is_told.is_set():
    if rate and step >= (now - started) * rate:
        time.sleep(0.001)
        continue
    if step % 8192 == 0 and step and not rate:
        writer.flush(60)  # free-running: wait for the disk, drop nothing
    writer.append(Record(step, time.time(), {}, rows[step % 4096]))
    step += 1
writer.close()
writer.shipper.wait()
print(json.dumps([writer.id, str(writer.path), step * num_scalars, started, time.time(), now - started,
                  writer.num_dropped]), flush=True)
"""


def run_writers(server: Server, database: str, spool: Path, count: int, seconds: float, rate: float,
                beside: Any = None) -> tuple[list[Any], Any]:  # fmt: skip
    """Run writers and return what each said at its end, and what `beside(ids)` returned meanwhile."""
    address = server.database(database)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1",
                   "TRAINVITALS_SPOOL": str(spool)}  # fmt: skip
    writers = []
    for rank in range(count):
        process = subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, env=environment)  # fmt: skip
        process.stdin.write(json.dumps([address, rank, seconds, rate, NUM_SCALARS]) + "\n")
        process.stdin.flush()
        writers.append(process)
    try:
        ids = [process.stdout.readline().strip() for process in writers]
        for process in writers:
            process.stdin.write("go\n")
            process.stdin.flush()
        seen = beside(address, ids) if beside else None
        if beside:
            for process in writers:
                process.stdin.write("stop\n")
        ends = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in writers]
    finally:
        for process in writers:
            process.kill()
    check(address, ends)
    close_idle()
    return ends, seen


def check(address: str, ends: list[Any]) -> None:
    """Compare every run with its file: nothing dropped, nothing lost, nothing changed."""
    for run_id, path, num_points, *_, num_dropped in ends:
        here, there = RunReader(path), RunReader(opening(address, run_id))
        if num_dropped or there.header().num_points != num_points:
            raise RuntimeError(f"expected {num_points} points, got {there.header().num_points}, {num_dropped} dropped")
        for name in ("scalar_0", f"scalar_{NUM_SCALARS - 1}"):
            if here.series(name).points.value.tobytes() != there.series(name).points.value.tobytes():
                raise RuntimeError(f"expected the same {name} in file and database of {run_id}")


def free_running(server: Server, number: int, count: int, seconds: float) -> dict[str, float]:
    """Return points a second of all writers together, the catching up included."""
    with tempfile.TemporaryDirectory() as spool:
        ends, _ = run_writers(server, f"free_{number}", Path(spool), count, seconds, 0.0)
    num_points = sum(end[2] for end in ends)
    wall = max(end[4] for end in ends) - min(end[3] for end in ends)
    return {"points_per_second": num_points / wall, "points": num_points, "seconds": wall}


def lag(server: Server, number: int, count: int, seconds: float, points_per_second: float) -> dict[str, float]:
    """Return the reader's lag while all write at a steady rate together, their shippers once started."""
    rate = points_per_second / count / NUM_SCALARS  # steps a second of one writer

    def read(address: str, ids: list[str]) -> list[float]:
        reader, lags, seen = RunReader(opening(address, ids[0])), [], -1
        while len(there := list_database_or_none(address)) < len(ids) or not all(run.num_points for run in there):
            time.sleep(0.1)
        end = time.time() + seconds
        while time.time() < end:
            points = reader.series("scalar_0", start=seen + 1).points  # what is new, as the dashboard asks
            now = time.time()
            if len(points):
                seen = int(points.step[-1])
                # the oldest of the new points waited longest: until this answer
                lags.append(now - float(points.time[0]))
            time.sleep(0.1)
        return lags

    with tempfile.TemporaryDirectory() as spool:
        ends, lags = run_writers(server, f"lag_{number}", Path(spool), count, 600.0, rate, read)
    lags = lags[1:]  # the first one is how long its shipper took to start
    reached = sum(end[2] / end[5] for end in ends)
    return {"lag_p50": float(np.median(lags)), "lag_max": max(lags), "answers": len(lags), "reached": reached}


def cpu_seconds(server: Server, number: int) -> dict[str, float]:
    """Return processor seconds for a million points of the writer, the shipper and the server: load does not matter."""
    rng = np.random.default_rng(number)
    names = [f"scalar_{i}" for i in range(NUM_SCALARS)]
    rows = rng.normal(size=(4096, NUM_SCALARS)).astype(np.float32).astype(float).tolist()
    records = [dict(zip(names, row, strict=True)) for row in rows]
    spent = {"writer": 0.0, "shipper": 0.0}
    with tempfile.TemporaryDirectory() as spool, RunWriter.create(spool, "cpu", {}, {}) as writer:
        shipper = Shipper(writer.path, server.database(f"cpu_{number}"))
        with shipper:
            shipper.ship()
            before = _server_seconds(server)
            for step in range(5 * 4096):
                start = time.process_time()
                writer.append(Record(step, time.time(), {}, records[step % 4096]))
                if step % 4096 == 4095:
                    writer.flush(120)
                    spent["writer"] += time.process_time() - start
                    start = time.process_time()
                    shipper.ship()
                    spent["shipper"] += time.process_time() - start
                else:
                    spent["writer"] += time.process_time() - start
            spent["server"] = _server_seconds(server) - before
    return {name: seconds / (5 * 4096 * NUM_SCALARS) * 1e6 for name, seconds in spent.items()}


def _server_seconds(server: Server) -> float:
    postmaster = psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))
    return sum(sum(process.cpu_times()[:2]) for process in [postmaster, *postmaster.children()])


def list_database_or_none(address: str) -> list[RunSummary]:
    """Return the runs of the database; none while its tables are being made."""
    try:
        return list_database(address)
    except StoreError:
        return []


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steady", type=float, default=200_000, help="points a second of the steady load for the lag")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    with Server(SERVER) as server:
        free = [free_running(server, i, options.writers, options.seconds) for i in range(options.repeats)]
        print(json.dumps(free), flush=True)
        lags = [lag(server, i, options.writers, options.seconds, options.steady) for i in range(options.repeats)]
        cpu = [cpu_seconds(server, i) for i in range(options.repeats)]
        with server.session() as session:
            version = session.execute("SHOW server_version").fetchone()[0]
    raw = {"free": free, "lag": lags, "cpu": cpu}
    print(json.dumps(raw, indent=1))
    text = write(options, free, lags, cpu, version)
    print(text)
    if not options.no_save:
        folder = Path(__file__).parent / "results"
        (folder / "store_postgres.md").write_text(text, encoding="utf-8")
        (folder / "store_postgres.json").write_text(
            json.dumps({"machine": report.machine(), "postgresql": version, **raw}, indent=1) + "\n"
        )


def write(options: argparse.Namespace, free: list[dict], lags: list[dict], cpu: list[dict], version: str) -> str:
    """Return the page of results."""
    speeds = sorted(one["points_per_second"] for one in free)
    worst = sorted(one["lag_max"] for one in lags)
    typical = sorted(one["lag_p50"] for one in lags)
    reached = statistics.median(speeds)
    lines = [
        "# The PostgreSQL store under load", "",
        f"`python benchmarks/store_postgres.py`: {options.writers} writers, {NUM_SCALARS} scalars a step (float32 "
        f"values), {options.seconds:g} s, {options.repeats} repeats; PostgreSQL {version} with fsync, the writers, "
        f"their shippers and the reader on one machine. {report.machine()}", "",
        "| | goal | median | range |", "|---|---|---|---|",
        f"| all writers together, free-running, catching up included (points/s) | {GOAL_POINTS_PER_SECOND:,} "
        f"| {reached:,.0f} | {speeds[0]:,.0f} to {speeds[-1]:,.0f} |",
        f"| reader's lag at {options.steady:,.0f} points/s together, worst answer (s) | {GOAL_LAG_SECONDS:g} "
        f"| {statistics.median(worst):.2f} | {worst[0]:.2f} to {worst[-1]:.2f} |",
        f"| the same, median answer (s) | | {statistics.median(typical):.2f} | {typical[0]:.2f} to {typical[-1]:.2f} |",
        *(f"| processor time of the {part} for a million points (s) | | {statistics.median(c[part] for c in cpu):.3f} "
          f"| {min(c[part] for c in cpu):.3f} to {max(c[part] for c in cpu):.3f} |" for part in cpu[0]),
        "", "Every run was compared with its file afterwards: no point dropped, none lost, none changed. "
        "The lag is from the log call of the oldest new point to the answer that has it.", "",
    ]  # fmt: skip
    load = os.getloadavg()[1]
    total = sum(statistics.median(c[part] for c in cpu) for part in cpu[0])
    lines += [
        f"Load average of the machine while this was measured: {load:.1f} on {os.cpu_count()} cores; what runs beside "
        f"the benchmark takes its share from every wall time here, not from the processor times. Writer, shipper and "
        f"server together take {total:.2f} s of one core for a million points.", "",
    ]  # fmt: skip
    verdict = "reached" if reached >= GOAL_POINTS_PER_SECOND else "not reached"
    late = "reached" if worst[-1] <= GOAL_LAG_SECONDS else "not reached"
    lines += [f"Goals: points a second {verdict} on this machine; lag {late}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
