"""The dashboard in headless Chromium: charts drawn, live points, links, hostile names."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import accessibility
import make_run
import pytest
from conftest import APP, HOSTILE

from trainvitals.schema import Chart, Description, Question, Reading, Record, Status
from trainvitals.store.writer import RunWriter
from trainvitals.views.dashboard import ORDER

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
SCREENSHOTS = APP.parent / "build" / "screenshots"  # ignored by git, kept by CI
PATHS = [path for *_, path in ORDER]

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@contextlib.contextmanager
def served(store: Path):
    """Serve the dashboard of a store folder on a free port; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.port", str(port), "--", "--store", store]
    server = subprocess.Popen(list(map(str, command)), cwd=APP.parent, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).status == 200, 60)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        assert time.monotonic() < end, f"nothing within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    store = tmp_path_factory.mktemp("runs")
    make_run.record_run(store, "older", 40)
    make_run.record_run(store)
    with served(store) as address:
        yield address


def opened(page, address: str):
    page.goto(address)
    page.get_by_text("step", exact=False).first.wait_for(timeout=60_000)
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=60_000)
    return page


def assert_no_errors(page) -> None:
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.get_by_text("cannot be drawn").count() == 0


BACKGROUND = "getComputedStyle(document.querySelector('.stApp')).backgroundColor"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path or "first")
def test_every_page_draws_its_charts_and_is_accessible_in_light_and_dark(page, finished, path):
    opened(page, f"{finished}/{path}")
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        wait_for(lambda: page.evaluate(BACKGROUND) not in grounds, 10)
        grounds.add(page.evaluate(BACKGROUND))
        page.wait_for_selector(".js-plotly-plot .main-svg")
        page.wait_for_timeout(1000)  # fonts, sizes and colours settle before the picture
        assert_no_errors(page)
        assert page.locator(".js-plotly-plot .main-svg").count() >= 2  # two layers of one chart at least
        page.screenshot(path=SCREENSHOTS / f"{path or 'first'}-{scheme}.png")
        assert accessibility.violations(page) == []
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing to scroll sideways on a phone
    page.screenshot(path=SCREENSHOTS / f"{path or 'first'}-phone.png")


def test_a_phone_shows_the_cards_below_each_other(browser, finished):
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = opened(context.new_page(), f"{finished}/overfitting")
    assert_no_errors(page)
    boxes = [plot.bounding_box() for plot in page.locator(".js-plotly-plot").all()[:2]]
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"] / 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=SCREENSHOTS / "overfitting-phone.png")
    context.close()


def test_a_link_opens_the_same_view(page, browser, finished):
    opened(page, f"{finished}/sharpness")
    assert "run=digits-cnn" in page.url  # the newest
    page.locator("[data-testid=stSelectbox] input").click()
    page.get_by_text("older").first.click()
    page.wait_for_url("**/sharpness?run=older*")
    page.get_by_text("Which weights grow?").first.click()
    page.wait_for_url("**/weights?run=older*")
    link = page.url
    context = browser.new_context()
    other = opened(context.new_page(), link)
    assert other.url == link
    assert other.get_by_text("older · Finished").count() == 1
    assert other.get_by_role("heading", name="Which weights grow?").count() == 1
    context.close()


def handshake(address: str, host: str) -> str:
    """Ask for the page's websocket under a host name; return the status line."""
    port = int(address.rsplit(":", 1)[1])
    words = f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\n" + (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(words.encode())
        return connection.recv(200).decode(errors="replace").splitlines()[0]


def test_a_foreign_host_name_is_refused(finished):
    assert " 101 " in handshake(finished, "localhost")
    assert " 403 " in handshake(finished, "evil.example")


def last_x(page) -> float:
    """The last step of the page's first chart."""
    return page.evaluate(
        "Math.max(...document.querySelector('.js-plotly-plot')._fullData"
        ".filter(t => t.mode.includes('lines')).flatMap(t => Array.from(t.x)))"
    )


@pytest.fixture
def live(tmp_path):
    """A child process that writes a point each half second: its process, and the store folder."""
    environment = {**os.environ, "PYTHONPATH": str(APP.parent)}
    child = subprocess.Popen([sys.executable, str(Path(make_run.__file__)), str(tmp_path), "--live", "60"],
                             stdout=subprocess.PIPE, text=True, env=environment)  # fmt: skip
    child.stdout.readline()  # the run's id
    yield child, tmp_path
    child.kill()
    child.wait()
    child.stdout.close()


def test_a_live_point_appears_within_three_seconds(page, live):
    child, folder = live
    with served(folder) as address:
        opened(page, f"{address}/overfitting")
        for _ in range(4):
            step = int(child.stdout.readline())
        wait_for(lambda: last_x(page) >= step, 3.0)
        assert_no_errors(page)


def x_range(page) -> list[float]:
    return page.evaluate("Array.from(document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range)")


def test_chosen_steps_stay_while_the_run_goes_on(page, live):
    child, folder = live
    with served(folder) as address:
        for _ in range(8):
            child.stdout.readline()
        opened(page, f"{address}/overfitting?from=20&to=50")
        before = x_range(page)
        assert before[0] > 10
        assert before[1] < 60
        page.wait_for_timeout(3000)
        assert x_range(page) == before
        assert "from=20" in page.url
        assert_no_errors(page)


def test_a_killed_run_is_shown_as_crashed_and_a_new_one_appears_in_the_picker(page, live):
    child, folder = live
    with served(folder) as address:
        opened(page, f"{address}/overfitting")
        page.get_by_text("live", exact=True).first.wait_for()
        child.kill()
        page.get_by_text("crashed", exact=True).first.wait_for(timeout=30_000)
        make_run.record_run(folder, "latecomer", 20)
        for _ in range(10):  # the list of runs is read every few seconds, and not while it is open
            page.wait_for_timeout(3000)
            page.locator("[data-testid=stSelectbox] input").click()
            page.wait_for_timeout(500)
            if page.get_by_text("latecomer").count():
                return
            page.keyboard.press("Escape")
        raise AssertionError("the new run did not appear in the picker")


def test_hostile_names_are_inert(page, tmp_path):
    odd = Description("odd", HOSTILE, Question.WEIGHTS, HOSTILE, unit=HOSTILE, formula=HOSTILE, chart=Chart.HEATMAP)
    writer = RunWriter.create(tmp_path, HOSTILE, {}, {"odd": odd})
    reading = Reading(value=[1.0, 2.0], keys=(HOSTILE, "b"))
    for step in (0, 1):
        writer.append(Record(step, time.time(), {"odd": reading}, {HOSTILE: 1.0}))
    writer.close(Status.FINISHED)
    with served(tmp_path) as address:
        for path in ("weights", "overfitting"):  # the logged number has "error" in its name
            opened(page, f"{address}/{path}")
            page.wait_for_timeout(1000)
            assert page.evaluate("window.hacked") is None
            assert page.locator("img[src='x']").count() == 0
            assert page.locator("a[href^='javascript']").count() == 0
            assert_no_errors(page)
    page.screenshot(path=SCREENSHOTS / "hostile.png")
