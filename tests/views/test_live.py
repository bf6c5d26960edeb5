"""A page that stays open: refreshes while somebody looks, silence while nobody does, no flicker, no foreign request."""

import os
import statistics
import subprocess
import sys
import time
from datetime import UTC
from pathlib import Path

import make_run
import pytest
from conftest import APP
from test_browser import CHROMIUM, browser, last_x, opened, page, served, wait_for

from trainvitals.schema import Status
from trainvitals.views import tab
from trainvitals.views.health import freshness
from trainvitals.views.live import refresh_seconds

__all__ = ["browser", "page"]  # fixtures

in_chromium = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
NIGHT = 6 * 3600


@pytest.mark.parametrize(
    ("status", "age", "words"),
    [
        (Status.LIVE, 0.4, "Live: heard from 0.4 s ago"),
        (Status.STALLED, 300, "Stalled since 23:55: nothing heard for 5 min"),
        (Status.CRASHED, 3600, "Crashed at 23:00, 60 min ago"),
        (Status.FINISHED, 5 * 86400, "Finished at 1970-01-05 00:00, 5 days ago"),
    ],
)
def test_the_status_says_since_when_and_how_long_ago(status, age, words):
    now = 9 * 86400.0 if status == Status.FINISHED else 10 * 86400.0
    said = freshness(status, now - age, now, UTC).replace("1 h 0 min", "60 min")
    assert said == words


def test_a_run_that_was_never_heard_from_says_so():
    assert freshness(Status.STALLED, None, 100.0) == "Stalled, at an unknown time"


def test_nothing_is_asked_for_while_the_tab_is_hidden(monkeypatch):
    state = {}
    monkeypatch.setattr(tab.st, "session_state", state)
    assert tab.paced(refresh_seconds(Status.LIVE)) == 1.0
    state["tab"] = {"hidden": True}
    assert tab.paced(refresh_seconds(Status.LIVE)) is None
    state["tab"] = {"hidden": False}
    assert tab.paced(2.0) == 2.0


@pytest.fixture
def live(tmp_path):
    """A child process that writes a point each half second: its process, and the store folder."""
    child = subprocess.Popen([sys.executable, str(Path(make_run.__file__)), str(tmp_path), "--live", "120"],
                             stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": str(APP.parent)})  # fmt: skip
    child.stdout.readline()  # the run's id
    yield child, tmp_path
    child.kill()
    child.wait()
    child.stdout.close()


class Wire:
    """What a page says to its server and hears from it."""

    def __init__(self, page) -> None:
        self.num_sent, self.foreign = 0, []
        page.on("websocket", lambda socket: socket.on("framesent", self._sent))
        page.on("request", lambda request: self.foreign.append(request.url)
                if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")) else None)  # fmt: skip

    def _sent(self, _) -> None:
        self.num_sent += 1

    def is_quiet(self, page, seconds: float) -> bool:
        before = self.num_sent
        page.wait_for_timeout(1000 * seconds)
        return self.num_sent == before


SET_HIDDEN = """hidden => {
  Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""
WATCH_FRAMES = """seconds => new Promise(done => {
  const seen = [], start = performance.now(), look = () => {
    const charts = [...document.querySelectorAll('.stPlotlyChart')];
    const faded = charts.some(
      e => Number(getComputedStyle(e.closest('[data-testid=stElementContainer]') || e).opacity) < 1);
    const named = [...document.querySelectorAll('[class*="st-key-chart-"]')].map(
      e => [e.className.match(/st-key-chart-\\w+/)[0], e.querySelector('.main-svg') !== null]);
    const drawn = new Set(named.filter(([, is]) => is).map(([key]) => key));
    seen.push([new Set(named.map(([key]) => key)).size - drawn.size,
               document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight, faded, drawn.size]);
    performance.now() - start < 1000 * seconds ? requestAnimationFrame(look) : done(seen);
  };
  look();
})"""


class TestInChromium:
    pytestmark = in_chromium

    def test_a_page_is_fresh_does_not_flicker_and_rests_while_hidden(self, page, live):
        child, folder = live
        with served(folder) as address:
            wire = Wire(page)
            opened(page, f"{address}/overfitting")
            page.wait_for_timeout(1500)

            delays = []
            for _ in range(5):
                step = int(child.stdout.readline())
                written = time.monotonic()
                wait_for(lambda step=step: last_x(page) >= step, 6.0)
                delays.append(time.monotonic() - written)
            assert statistics.median(delays) < 2.0, delays

            frames = page.evaluate(WATCH_FRAMES, 3)
            assert max(num_gone for num_gone, *_ in frames) == 0  # no chart is without its picture for a moment
            assert min(num_drawn for *_, num_drawn in frames) >= 5
            heights = [height for _, height, *_ in frames]
            assert max(heights) - min(heights) < 150  # a line of text may come; the place of a chart never collapses
            assert not any(faded for *_, faded, _ in frames)

            page.evaluate(SET_HIDDEN, True)
            wait_for(lambda: wire.is_quiet(page, 3), 15)  # 2 s until it counts as hidden, and what was on its way
            before = last_x(page)
            page.evaluate(SET_HIDDEN, False)
            wait_for(lambda: last_x(page) > before, 15)
            assert not wire.is_quiet(page, 3)
            assert wire.foreign == []
