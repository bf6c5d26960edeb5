"""The dashboard as a reader meets it: seconds until a page is drawn, bytes over the wire, memory while it stays open.

    python benchmarks/dashboard.py                # about 10 minutes; 10⁵ and 10⁷ points, 10 viewers, 2,000 runs
    python benchmarks/dashboard.py --quick        # small sizes, to see that it runs
    python benchmarks/dashboard.py --minutes 60   # an hour of live refresh at its end

The server is `trainvitals ui` as users start it; pages are opened in headless Chromium. A page is drawn when the
charts that it has within the window are, from the request on, in a browser that has been there before (scripts are
cached; the first visit stands beside it). "cold" is the first reader of a run after the server's start, "again" the
next one. Bytes are those of the WebSocket's frames. Refreshes are timed in the server, by running the page's script
without a browser (Streamlit's AppTest).
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from dashboard_store import long_run
from dashboard_wire import Wire, browser, drawn, live_run
from report import spread, write
from store_scale import many_runs as fill

from trainvitals.commands.dashboard_server import free_port, serving
from trainvitals.store.catalogue import update

SIZES = (10**5, 10**7)
PAGES = ("", "overfitting", "sharpness", "gradients", "weights")
NUM_RUNS = 2000
NUM_VIEWERS = 10
HERE = Path(__file__).parent
Rows = list[dict[str, Any]]


@contextlib.contextmanager
def served(store: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Serve a store and yield its address and the server's process."""
    with serving(str(store), "127.0.0.1", free_port("127.0.0.1", 8700)) as server:
        yield server.address, psutil.Process(server.process.pid)


def first_page(store: Path, small: str, run_id: str, repeats: int) -> dict[str, list[float]]:
    """Return seconds until the first page is drawn: on a new server each time, and for the next reader."""
    found: dict[str, list[float]] = {"first visit": [], "cold": [], "again": []}
    for _ in range(repeats):
        with browser() as chromium, served(store) as (address, _process):
            context = chromium.new_context(viewport={"width": 1280, "height": 720})
            page = context.new_page()
            found["first visit"].append(drawn(page, f"{address}/?run={small}"))
            for kind in ("cold", "again"):  # cached scripts; the long run is new to the server, then known
                other = context.new_page()
                found[kind].append(drawn(other, f"{address}/?run={run_id}"))
                other.close()
    return found


def page_switches(store: Path, run_id: str, repeats: int) -> dict[str, list[float]]:
    """Return seconds from the click on a page's name until it is drawn: the first time, and later."""
    found: dict[str, list[float]] = {"first": [], "later": []}
    with browser() as chromium, served(store) as (address, _process):
        page = chromium.new_context(viewport={"width": 1280, "height": 720}).new_page()
        drawn(page, f"{address}/?run={run_id}")
        for turn in range(repeats + 1):
            for name in ("Is it overfitting?", "How sharp is it?", "Do the gradients agree?", "Which weights grow?"):
                link = page.locator("[data-testid=stSidebarNav]").get_by_text(name, exact=True)
                start = time.perf_counter()
                link.click()
                page.get_by_role("heading", name=name).wait_for()
                drawn(page)
                found["later" if turn else "first"].append(time.perf_counter() - start)
    return found


def server_side(store: Path, run_id: str, repeats: int) -> list[dict[str, Any]]:
    """Return milliseconds of the server and bytes of charts of every page, from a process of its own."""
    command = [sys.executable, str(HERE / "dashboard_pages.py"), str(store), run_id, str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [dict(zip(("page", "first_ms", "again_ms", "charts", "bytes"), line.split("\t"), strict=True))
            for line in done.stdout.splitlines() if line.count("\t") == 4]  # fmt: skip


def live(folder: Path, seconds: float, num_viewers: int) -> dict[str, Any]:
    """Return what viewers of a live run cost: bytes a refresh, share of a core, step-to-screen seconds, memory."""
    with live_run(folder, seconds + 60) as steps, browser() as chromium, served(folder) as (address, process):
        pages = [chromium.new_context(viewport={"width": 1280, "height": 720}).new_page() for _ in range(num_viewers)]
        wires = [Wire(page) for page in pages]
        for page in pages:
            drawn(page, f"{address}/overfitting")
        delays = [steps.until_seen(pages[0]) for _ in range(8)]
        memory, wanted = [process.memory_info().rss], time.monotonic() + seconds
        used, start = sum(process.cpu_times()[:2]), time.monotonic()
        before = [wire.num_bytes for wire in wires]
        while time.monotonic() < wanted:
            pages[0].wait_for_timeout(min(10_000, 1000 * seconds / 6))
            memory.append(process.memory_info().rss)
        lasted = time.monotonic() - start
        received = sum(wire.num_bytes for wire in wires) - sum(before)
        return {
            "num_viewers": num_viewers, "seconds": lasted, "delays": delays,
            "bytes_per_viewer_second": received / num_viewers / lasted,
            "core_share": (sum(process.cpu_times()[:2]) - used) / lasted,
            "rss_mib": [size / 2**20 for size in memory],
        }  # fmt: skip


def many_runs(folder: Path, num_runs: int) -> dict[str, float]:
    """Return seconds until the first page stands beside a list of so many runs, and the bytes that it took."""
    fill(folder, num_runs)
    update(folder)
    with browser() as chromium, served(folder) as (address, _process):
        context = chromium.new_context(viewport={"width": 1280, "height": 720})
        drawn(context.new_page(), address)
        page = context.new_page()
        wire = Wire(page)
        return {"seconds": drawn(page, address), "bytes": float(wire.num_bytes)}


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[Rows, list[str], dict[str, Any]]:
    """Run everything and return the table, the notes and the raw numbers."""
    rows: Rows = []
    raw: dict[str, Any] = {}
    sizes = (10**4, 10**5) if arguments.quick else SIZES
    repeats = 1 if arguments.quick else arguments.repeats

    def add(what: str, value: str, goal: str = "") -> None:
        rows.append({"what": what, "measured": value, "goal": goal})
        print(f"{what}: {value}", file=sys.stderr, flush=True)

    for size in sizes:
        store = folder / str(size)
        store.mkdir()
        small = long_run(store, 10**4, "small")
        run_id = long_run(store, size, "long")
        name = f"{size:,} points"
        times = raw[f"first page {size}"] = first_page(store, small, run_id, repeats)
        for kind, seconds in times.items():
            if kind != "first visit" or size == sizes[0]:
                add(f"first page, {kind}, {name}, s", spread(seconds), "≤ 1.5" if kind != "first visit" else "")
        switches = raw[f"switch {size}"] = page_switches(store, run_id, repeats)
        for kind, seconds in switches.items():
            add(f"page switch, {kind} time, {name}, s", spread(seconds), "≤ 0.7")
        pages = raw[f"server {size}"] = server_side(store, run_id, max(repeats, 3))
        again = [float(page["again_ms"]) for page in pages]
        add(f"refresh without a new point, server, over the pages, {name}, ms", spread(again), "≤ 150")
        heaviest = max(pages, key=lambda page: int(page["bytes"]))
        add(f"heaviest page's charts, {name}, MB", f"{int(heaviest['bytes']) / 1e6:.2f} ({heaviest['page']}, "
            f"{heaviest['charts']} charts)", "≤ 1 for 12 charts × 5 runs")  # fmt: skip
    add("first page again, largest over smallest run",
        f"{_middle(raw, sizes[1]) / _middle(raw, sizes[0]):.2f} ×", "< 1.5")  # fmt: skip
    for viewers in (1, 2 if arguments.quick else NUM_VIEWERS):
        watched = folder / f"live{viewers}"
        watched.mkdir()
        seconds = 15.0 if arguments.quick else 60.0
        if viewers > 1 and arguments.minutes:
            seconds = 60.0 * arguments.minutes
        found = raw[f"live {viewers}"] = live(watched, seconds, viewers)
        add(f"step to screen, {viewers} viewer(s), s", spread(found["delays"]), "≤ 2")
        add(f"live page, {viewers} viewer(s): kB a second for each", f"{found['bytes_per_viewer_second'] / 1e3:.0f}",
            "≤ 1,000")  # fmt: skip
        add(f"live page, {viewers} viewer(s): cores used by the server", f"{found['core_share']:.2f}", "< 2")
        memory = found["rss_mib"]
        add(f"memory of the server, {viewers} viewer(s), start → end of {found['seconds'] / 60:.1f} min, MiB",
            f"{memory[0]:.0f} → {memory[-1]:.0f} (largest {max(memory):.0f})", "flat")  # fmt: skip
    picker = folder / "many"
    picker.mkdir()
    num_runs = 50 if arguments.quick else NUM_RUNS
    found = raw["many runs"] = many_runs(picker, num_runs)
    add(f"first page beside {num_runs:,} runs, s", f"{found['seconds']:.2f}", "≤ 1.5")
    add(f"first page beside {num_runs:,} runs, kB", f"{found['bytes'] / 1e3:.0f}")
    notes = [__doc__ or ""]
    return rows, notes, raw


def _middle(raw: dict[str, Any], size: int) -> float:
    return statistics.median(raw[f"first page {size}"]["again"])


def main() -> None:
    """Measure and write `results/dashboard.md` and `.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=0.0, help="of live refresh with all viewers; 1 by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, notes, raw = measure(arguments, Path(folder))
    if arguments.quick:
        for row in rows:
            print(f"{row['what']}: {row['measured']}")
        return
    write("dashboard", "The dashboard", rows, notes, raw)


if __name__ == "__main__":
    main()
