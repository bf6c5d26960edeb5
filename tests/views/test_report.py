"""A run as one HTML file: whole, inert, bounded; in Chromium without a network, on a screen and on paper."""

import json
import re
import stat
import time

import make_run
import numpy as np
import pytest
from conftest import HOSTILE
from test_browser import CHROMIUM, SCREENSHOTS, browser
from typer.testing import CliRunner

from trainvitals.cli import app
from trainvitals.run import open_run
from trainvitals.schema import Chart, Description, Event, Question, Reading, Record, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.writer import RunWriter
from trainvitals.views import report as report_module
from trainvitals.views.report import report, write_report

__all__ = ["browser"]  # a fixture
DATA = re.compile(r'<script type="application/json">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run.record_run(folder, num_steps=200)
    with open_run("latest", folder) as run:
        return report(run, now=time.time())


def without_library(text: str) -> str:
    return re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def test_a_report_answers_first_and_holds_every_metric_settings_and_provenance(text):
    body = without_library(text)
    assert body.index("Nothing is found to be wrong") < body.index('class="chart"')
    for words in ("digits-cnn", "Train and held-out loss", "Latest values", "What measuring cost", "optimizer.class",
                  "Definitions", "Where this comes from", "|G|² ≤ 0", "Not measured well enough"):  # fmt: skip
        assert words in body, words
    figures = [json.loads(data) for data in DATA.findall(text)]
    assert len(figures) == body.count('class="chart"') > 20
    assert all(figure["data"] for figure in figures)
    assert "cannot be drawn" not in body


def test_every_metric_of_the_run_is_named(text):
    for name in make_run.readings(0, np.random.default_rng(0)):
        assert name in text, name


def test_a_report_needs_nothing_and_forbids_everything_else(text):
    body = without_library(text)
    assert "default-src &#x27;none&#x27;" in body
    assert not re.search(r"""(src|href)=["'](?!#)""", body)
    assert "@import" not in body
    assert len(text) < 8_000_000


def test_hostile_names_are_text(tmp_path):
    bad = HOSTILE + "</script><script>window.hacked=1</script>"
    odd = {"odd": Description("odd", bad, Question.WEIGHTS, bad, unit=bad, formula=bad, chart=Chart.HEATMAP)}
    with RunWriter.create(tmp_path, bad, {bad: {bad: bad}}, odd) as writer:
        for step in (0, 1):
            writer.append(Record(step, time.time(), {"odd": Reading(value=[1.0, 2.0], keys=(bad, "b"))}, {bad: 1.0}))
        writer.event(Event(0, time.time(), "warning", bad))
    with open_run(writer.path) as run:
        text = report(run)
    assert "<img src=x" not in text
    assert text.count("<script>") == 2
    assert "window.hacked" in text  # shown, not run


def test_the_size_is_bounded_and_what_is_left_out_is_named(tmp_path, monkeypatch):
    make_run.record_run(tmp_path, num_steps=40)
    monkeypatch.setattr(report_module, "MAX_CHART_BYTES", 40_000)
    with open_run("latest", tmp_path) as run:
        text = report(run)
    assert sum(map(len, DATA.findall(text))) <= 40_000
    left_out = re.search(r"Not drawn here, for the size of this file: (.*?)</p>", text).group(1)
    assert "Loss of each sample" in left_out


def test_a_run_without_points_has_a_report(tmp_path):
    with RunWriter.create(tmp_path, "empty", {}, {}) as writer:
        pass
    with open_run(writer.path) as run:
        assert "Too early to say" in report(run)


def test_a_report_is_its_owners_alone_and_replaces_nothing_unasked(tmp_path):
    make_run.record_run(tmp_path, num_steps=20, status=Status.CRASHED)
    to = tmp_path / "new" / "report.html"
    with open_run("latest", tmp_path) as run:
        write_report(run, to)
        assert stat.S_IMODE(to.stat().st_mode) == 0o600
        with pytest.raises(StoreError, match="not there yet"):
            write_report(run, to)
        write_report(run, to, overwrite=True)
    assert [path.name for path in to.parent.iterdir()] == ["report.html"]
    assert "it ended on an error" in to.read_text(encoding="utf-8")


def test_export_writes_a_report(tmp_path):
    make_run.record_run(tmp_path, num_steps=20)
    to = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["export", "latest", "--store", str(tmp_path), "--html", str(to)])
    assert done.exit_code == 0, done.output
    assert "opens offline" in done.output
    assert to.read_text(encoding="utf-8").startswith("<!doctype html>")
    both = CliRunner().invoke(app, ["export", "latest", "--store", str(tmp_path), "--html", "a.html", "--to", "b"])
    assert both.exit_code == 2


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_report_opens_without_a_network_and_prints(browser, text, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(text.replace("digits-cnn", HOSTILE.replace("<", "&lt;"), 1), encoding="utf-8")
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 900, "height": 1000}, color_scheme=scheme, offline=True)
        page, asked, said = context.new_page(), [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.goto(file.as_uri())
        page.locator("html[data-drawn]").wait_for(state="attached", timeout=60_000)
        assert asked == [file.as_uri()]
        assert said == []
        assert page.locator(".chart .main-svg").count() >= 2 * page.locator(".chart").count()
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"report-{scheme}.png")
        if scheme == "dark":  # paper is white whatever the screen is
            page.emulate_media(media="print")
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
            page.emulate_media(media="screen")
            pdf = page.pdf(path=SCREENSHOTS / "report.pdf", prefer_css_page_size=True)
            assert pdf.startswith(b"%PDF")
            assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 5
        context.close()
    phone = browser.new_context(viewport={"width": 390, "height": 800}, offline=True)
    page = phone.new_page()
    page.goto(file.as_uri())
    page.locator("html[data-drawn]").wait_for(state="attached", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()
