"""What `benchmarks/dashboard.py` sees in a browser: when a page is drawn, what came over the wire, a live run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

TESTS = Path(__file__).parents[1] / "tests" / "views"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SECONDS = 120.0
# Drawn: no skeleton is left, and every chart that reaches into the window has its picture.
DRAWN = """() => {
  const places = [...document.querySelectorAll('[data-testid=stPlotlyChart], [data-testid=stSkeleton]')];
  const seen = places.filter(p => p.getBoundingClientRect().top < innerHeight && p.offsetHeight);
  return document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'
    && seen.every(p => p.querySelector('.main-svg')) && document.querySelector('.main-svg') !== null;
}"""


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Yield headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


def drawn(page: Any, address: str = "") -> float:
    """Open an address, if there is one, wait until the page is drawn, and return the seconds it took."""
    start = time.perf_counter()
    if address:
        page.goto(address, wait_until="commit")
    page.wait_for_function(DRAWN, polling="raf", timeout=1000 * SECONDS)
    return time.perf_counter() - start


class Wire:
    """Counts the bytes that a page receives over its WebSocket from now on."""

    def __init__(self, page: Any) -> None:
        self.num_bytes = 0
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))

    def _received(self, data: Any) -> None:
        self.num_bytes += len(data)


class Steps:
    """The steps of a run that goes on, as its child process names them."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines

    def until_seen(self, page: Any) -> float:
        """Return the seconds from the next step's record until it is the last point of the page's first chart."""
        step, start = int(self._lines.readline()), time.perf_counter()
        page.wait_for_function(
            "step => Math.max(...(document.querySelector('.js-plotly-plot')?._fullData ?? []).filter("
            "t => t.mode?.includes('lines')).flatMap(t => Array.from(t.x))) >= step", arg=step, polling="raf",
            timeout=1000 * SECONDS,
        )  # fmt: skip
        return time.perf_counter() - start


@contextlib.contextmanager
def live_run(folder: Path, seconds: float) -> Iterator[Steps]:
    """Let a child process record a run, two steps a second, while the block runs."""
    command = [sys.executable, str(TESTS / "make_run.py"), str(folder), "--live", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parents[1])}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    child.stdout.readline()  # the run's id
    try:
        yield Steps(child.stdout)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
