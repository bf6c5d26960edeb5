"""Figures by name: a metric, a group, a page; drawn by the functions that draw the dashboard's."""

from __future__ import annotations

import subprocess
import sys

import make_run
import numpy as np
import plotly.graph_objects as go
import pytest

import trainvitals as tv
from trainvitals.run import UnknownMetricError
from trainvitals.schema import Question
from trainvitals.views import charts
from trainvitals.views.card import together
from trainvitals.views.figures import PAGES
from trainvitals.views.run_view import RunView
from trainvitals.views.stacked import stacked


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    make_run.record_run(folder)
    with tv.open_run("latest", store=folder) as opened:
        yield opened


def test_a_metric_is_drawn_as_its_card_is(run):
    figure = run.figure("hessian.top")
    view = RunView(run)
    expected = charts.draw(view.measured("hessian.top"), span=view.span)
    assert isinstance(figure, go.Figure)
    assert [trace.name for trace in figure.data] == [trace.name for trace in expected.data]
    for drawn, trace in zip(figure.data, expected.data, strict=True):
        np.testing.assert_array_equal(drawn.y, trace.y)
    assert figure.layout.title.text == view.descriptions["hessian.top"].title


def test_a_page_has_its_first_card_on_top_and_every_other_metric_once(run):
    figure = run.figure("sharpness")
    titles = [note.text for note in figure.layout.annotations if (note.text or "").startswith("<b>")]
    assert titles[0] == "<b>Sharpness and its threshold</b>"
    assert len(titles) == len(set(titles)) > 2
    assert f"<b>{run.descriptions['hessian.top'].title}</b>" in titles
    by_words = run.figure(str(Question.SHARPNESS))
    assert len(by_words.data) == len(figure.data)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "checkpoints"])
def test_every_page_has_a_figure(run, page):
    figure = run.figure(page)
    rows = [axis for axis in figure.layout.to_plotly_json() if axis.startswith("xaxis")]
    assert figure.data
    assert figure.layout.height > 250 * max(len(rows) - 1, 1)
    figure.to_json()  # what a notebook is sent


def test_a_group_is_all_metrics_whose_names_begin_so(run):
    figure = run.figure("weights.norm")
    titles = {note.text for note in figure.layout.annotations if (note.text or "").startswith("<b>")}
    parts = [name for name in run.names() if name.startswith("weights.norm.")]
    assert titles == {f"<b>{run.descriptions[name].title}</b>" for name in parts}
    assert len(parts) > 1


def test_steps_are_chosen_as_in_series(run):
    last = run.last_step
    figure = run.figure("loss.train", start=2, stop=last)
    steps = np.concatenate([trace.x for trace in figure.data if trace.mode != "markers"])
    assert steps.min() >= 2
    assert steps.max() < last


def test_an_unknown_name_is_told_what_is_near(run):
    with pytest.raises(UnknownMetricError, match=r"got 'sharpnes' in Run.figure; did you mean sharpness"):
        run.figure("sharpnes")
    with pytest.raises(UnknownMetricError, match=r"got 'hessian.tpo' in Run.figure; did you mean hessian.top"):
        run.figure("hessian.tpo")
    with pytest.raises(UnknownMetricError, match="expected a metric, a group or a page"):
        run.figure("")


def test_a_closed_run_is_not_drawn(run, tmp_path):
    make_run.record_run(tmp_path)
    opened = tv.open_run("latest", store=tmp_path)
    opened.close()
    with pytest.raises(ValueError, match="expected an open run"):
        opened.figure("loss.train")


def test_rows_keep_their_own_axes_legends_and_marks(run):
    view = RunView(run)
    losses = together("Losses", "", "loss.train", "loss.heldout", marks=[(3, "here")]).draw(view, "")
    growth = charts.heatmap(view.measured("weights.norm.growth"), span=view.span)
    figure = stacked([("Losses", losses), ("<b>Growth</b>", growth)])
    upper, lower = figure.layout.yaxis.domain, figure.layout.yaxis3.domain
    assert upper[0] > lower[1]
    assert {trace.yaxis for trace in figure.data if trace.type == "heatmap"} == {"y3"}
    assert all(trace.xaxis in ("x", "x2") for trace in figure.data)
    (heat,) = [trace for trace in figure.data if trace.type == "heatmap"]
    assert lower[0] < heat.colorbar.y < lower[1]
    assert figure.layout.shapes[0].yref == "y domain"
    assert figure.layout.shapes[0].xref == "x"
    assert figure.layout.legend.y == pytest.approx(upper[1])
    assert any("&lt;b&gt;Growth" in note.text for note in figure.layout.annotations)


def test_nothing_is_loaded_for_figures_before_one_is_asked_for():
    code = ("import sys, trainvitals.run\n"
            "loaded = {'plotly', 'streamlit', 'IPython', 'trainvitals.views.figures'} & set(sys.modules)\n"
            "assert not loaded, loaded\nimport trainvitals.views.figures\n"
            "assert not {'streamlit', 'torch', 'IPython'} & set(sys.modules)")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
