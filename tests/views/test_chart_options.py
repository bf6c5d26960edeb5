"""What the reader chose for all charts: from the address, into the figures."""

import numpy as np
import pytest
from conftest import PAGES
from test_charts import as_dict, described, points, trace

from trainvitals.schema import Chart, Scale
from trainvitals.views import chart_options, charts
from trainvitals.views.chart_options import WIDTHS, chosen_options
from trainvitals.views.chart_style import ChartOptions
from trainvitals.views.measured import Measured
from trainvitals.views.smoothing import smoothed
from trainvitals.views.thinning import MAX_POINTS

NOISY = Measured(described(), points(range(200), np.sin(np.arange(200) / 9) + 2))


@pytest.mark.parametrize(("state", "expected"), [
    ({}, ChartOptions()), ({"smooth": "10 %", "axis": "log", "picture": "svg"}, ChartOptions(0.1, Scale.LOG, "svg")),
    ({"smooth": "12 %", "axis": "as defined", "picture": "exe"}, ChartOptions()),
], ids=["nothing", "all", "unknown"])  # fmt: skip
def test_what_the_address_does_not_know_is_the_default(monkeypatch, state, expected):
    monkeypatch.setattr(chart_options.st, "session_state", state)
    assert chosen_options() == expected


def test_the_camera_saves_what_was_chosen_under_the_charts_name():
    config = ChartOptions(picture="svg").config("run-loss")
    assert config["toImageButtonOptions"] == {"format": "svg", "filename": "run-loss", "scale": 1}
    assert "toImage" not in config["modeBarButtonsToRemove"]


def test_a_smoothed_line_has_the_measured_one_behind_it():
    figure = as_dict(charts.lines([NOISY], span=(0, 199), options=ChartOptions(smoothing=0.1)))
    ghost, line = trace(figure, "A metric, measured"), trace(figure, "A metric")
    assert ghost["opacity"] == charts.GHOST
    assert ghost["showlegend"] is False
    assert ghost["y"] == NOISY.points["value"].tolist()
    assert line["y"] == pytest.approx(smoothed(np.arange(200.0), NOISY.points["value"].to_numpy(), 19.9).tolist())
    assert "smoothed" in line["customdata"][50]


def test_two_points_are_not_smoothed():
    figure = as_dict(charts.lines([Measured(described(), points([0, 1], [1, 2]))], options=ChartOptions(smoothing=0.3)))
    assert trace(figure, "A metric")["y"] == [1, 2]


def test_smoothing_keeps_bytes_bounded():
    many = Measured(described(), points(range(5000), np.random.default_rng(0).normal(size=5000)))
    figure = as_dict(charts.lines([many], options=ChartOptions(smoothing=0.1)))
    assert all(len(t["x"]) <= MAX_POINTS for t in figure["data"])


@pytest.mark.parametrize(("chosen", "kind"), [(Scale.LOG, "log"), (Scale.LINEAR, None)])
def test_the_readers_scale_wins_over_the_metrics(chosen, kind):
    log = Measured(described(scale=Scale.LOG if kind is None else Scale.LINEAR), points(range(9), np.arange(9) + 1.0))
    figure = as_dict(charts.draw(log, options=ChartOptions(scale=chosen)))
    assert figure["layout"]["yaxis"].get("type") == kind


def test_layers_out_of_proportion_are_marked_beside_their_row():
    table = points([0, 1], [1, 2], key="head")
    figure = as_dict(charts.heatmap(Measured(described(chart=Chart.HEATMAP), table), marked={"head"}))
    assert figure["layout"]["yaxis"]["ticktext"] == ["▲ head"]


def test_the_fields_are_in_the_sidebar_and_every_width_is_one_of_theirs(open_app, store):
    app = open_app(store, next(page for page in PAGES if page.stem == "is_it_overfitting"))
    assert list(app.select_slider(key="smooth").options) == list(WIDTHS)
    app.select_slider(key="smooth").set_value("10 %").run()
    assert not app.exception
    assert not app.error
