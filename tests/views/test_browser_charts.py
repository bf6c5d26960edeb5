"""Charts in headless Chromium: steps dragged over, views that a link restores, numbers saved, a new run followed."""

import make_run
import pandas as pd
import pytest
from test_browser import (
    CHROMIUM,
    SCREENSHOTS,
    assert_no_errors,
    browser,
    finished,
    opened,
    page,
    served,
    wait_for,
)

__all__ = ["browser", "finished", "page"]  # fixtures

PATIENCE = 40  # seconds: on a machine that is busy with other things

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


def drag(page, chart: int = 0) -> None:
    """Drag over the middle of a chart, from 30 % to 60 % of its width."""
    area = page.locator(".js-plotly-plot .nsewdrag").nth(chart)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.3 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.45 * box["width"], y, steps=4)
    page.mouse.move(box["x"] + 0.6 * box["width"], y, steps=4)
    page.mouse.up()


def ranges(page) -> list[list[float]]:
    return page.evaluate("Array.from(document.querySelectorAll('.js-plotly-plot')).slice(0, 2)"
                         ".map(plot => Array.from(plot._fullLayout.xaxis.range))")  # fmt: skip


def typed(page) -> list[str]:
    """The fields of the first and the last step, as the reader sees them."""
    return [field.input_value() for field in page.locator("[data-testid=stNumberInput] input").all()]


def test_a_drag_over_one_chart_chooses_the_steps_of_all(page, finished):
    opened(page, f"{finished}/weights")
    wait_for(lambda: len(ranges(page)) == 2, PATIENCE)
    page.wait_for_timeout(1000)
    before = ranges(page)
    drag(page)
    wait_for(lambda: all(typed(page)), PATIENCE)
    first, last = (int(text) for text in typed(page))
    assert 0 < first < last < 400
    wait_for(lambda: all(now[1] - now[0] < 0.6 * (old[1] - old[0])
                         for now, old in zip(ranges(page), before, strict=False)), PATIENCE)  # fmt: skip
    page.get_by_role("button", name="Show all steps").click()
    wait_for(lambda: ranges(page) == before, PATIENCE)
    assert_no_errors(page)


def test_a_link_restores_smoothing_scale_and_the_open_fold(page, finished):
    opened(page, f"{finished}/overfitting?smooth=10+%25&axis=log&charts=true")
    kind = "document.querySelector('.js-plotly-plot')._fullLayout.yaxis.type"
    wait_for(lambda: page.evaluate(kind) == "log", PATIENCE)
    assert page.evaluate("document.querySelector('.js-plotly-plot')._fullData.filter(t => t.opacity < 0.5).length") >= 2
    assert page.get_by_text("Value axis").is_visible()
    assert_no_errors(page)
    page.screenshot(path=SCREENSHOTS / "smoothed.png")


def test_a_link_restores_a_comparison(page, finished):
    opened(page, f"{finished}/compare?align=train+loss&layout=side+by+side&metrics=hessian.trace")
    page.get_by_text("At the same train loss").wait_for(timeout=1000 * PATIENCE)
    assert page.locator(".js-plotly-plot").count() == 1
    assert page.evaluate("document.querySelector('.js-plotly-plot')._fullLayout._subplots.xaxis.length") == 2
    assert_no_errors(page)


def test_the_numbers_of_a_chart_are_saved(page, finished, tmp_path):
    opened(page, f"{finished}/sharpness")
    page.get_by_role("button", name="Data").first.click()
    with page.expect_download() as caught:
        page.get_by_role("button", name="CSV").click()
    caught.value.save_as(tmp_path / "numbers.csv")
    table = pd.read_csv(tmp_path / "numbers.csv")
    assert caught.value.suggested_filename.startswith("digits-cnn-stability.sharpness")
    assert {"stability.sharpness", "stability.threshold"} <= set(table["metric"])
    assert table["step"].max() == 400


def test_a_new_run_is_followed_without_a_reload(page, tmp_path):
    make_run.record_run(tmp_path, "first", 20)
    with served(tmp_path) as address:
        opened(page, f"{address}/overfitting?follow=true")
        page.get_by_text("first · Finished").wait_for(timeout=1000 * PATIENCE)
        make_run.record_run(tmp_path, "second", 20)
        page.get_by_text("second · Finished").wait_for(timeout=1000 * PATIENCE)
        assert "run=second" in page.url
        assert_no_errors(page)
