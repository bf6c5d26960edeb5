"""One metric of several runs as a figure."""

import numpy as np
import pandas as pd
import pytest
from conftest import HOSTILE

from trainvitals.schema import Description, Question, Scale
from trainvitals.views.chart_options import ChartOptions
from trainvitals.views.compare_charts import Course, comparison
from trainvitals.views.thinning import MAX_POINTS

LOSS = Description("loss", "Loss", Question.OVERFITTING, "s", unit="loss")


def course(name="run", place=0, n=100, scale=1.0, x=None):
    steps = np.arange(n)
    points = pd.DataFrame({"step": steps, "value": scale * np.exp(-steps / 30), "error": np.full(n, np.nan)})
    return Course(name, place, points, steps.astype(float) if x is None else x)


def lines(figure):
    return [trace for trace in figure.data if trace.name not in {"span"}]


def test_each_run_has_a_line_in_its_colour_at_its_place():
    figure = comparison(LOSS, [course("a", 0), course("b", 2)], "step")
    a, b = lines(figure)
    assert (a.name, b.name) == ("a", "b")
    assert a.line.color != b.line.color
    assert figure.layout.showlegend
    assert figure.layout.xaxis.title.text == "step"
    assert figure.layout.yaxis.title.text == "loss"


def test_points_without_a_place_are_left_out():
    x = np.arange(100.0)
    x[:50] = np.nan
    (line,) = lines(comparison(LOSS, [course(x=x)], "tokens"))
    assert len(line.x) == 50


@pytest.mark.parametrize("n", [10, 10_000])
def test_bytes_are_bounded_by_pixels(n):
    for line in lines(comparison(LOSS, [course(n=n)], "step")):
        assert len(line.x) <= MAX_POINTS


@pytest.mark.parametrize("smoothing", [0.0, 0.03])
def test_twelve_charts_of_five_long_runs_are_less_than_a_megabyte(smoothing):
    rng = np.random.default_rng(0)
    courses = [course(f"digits-cnn-{i}", i, n=20_000, scale=1 + rng.random()) for i in range(5)]
    for one in courses:
        one.points["value"] += rng.normal(size=20_000)
    figure = comparison(LOSS, courses, "step", options=ChartOptions(smoothing))
    assert 12 * len(figure.to_json()) < 1_000_000 * (2 if smoothing else 1)  # smoothed, every line is there twice


def test_side_by_side_runs_share_their_axes():
    figure = comparison(LOSS, [course(str(i), i) for i in range(7)], "step", side_by_side=True)
    assert not figure.layout.showlegend
    axes = {trace.xaxis for trace in lines(figure)}
    assert len(axes) == 7
    roots = [{axis.matches or axis.plotly_name.replace("axis", "") for axis in kind}
             for kind in (figure.select_xaxes(), figure.select_yaxes())]  # fmt: skip
    assert [len(root) for root in roots] == [1, 1]
    assert all(axis.range is None and axis.visible is not False for axis in figure.select_yaxes())
    assert {note.text for note in figure.layout.annotations} >= {str(i) for i in range(7)}


def test_a_loss_falls_to_the_right_on_a_logarithmic_axis():
    figure = comparison(LOSS, [course(x=np.geomspace(3, 0.01, 100))], "train loss", falls=True)
    assert figure.layout.xaxis.autorange == "reversed"
    assert figure.layout.xaxis.type == "log"
    figure = comparison(LOSS, [course(x=np.linspace(3, 0.0, 100))], "train loss", falls=True)
    assert figure.layout.xaxis.type != "log"


def test_smoothing_keeps_the_measured_line_pale_and_out_of_the_legend():
    ghost, line = lines(comparison(LOSS, [course()], "step", options=ChartOptions(smoothing=0.1)))
    assert ghost.opacity < 0.5
    assert not ghost.showlegend
    assert line.y[50] > ghost.y[50]  # behind a falling line


def test_the_reader_chooses_the_scale():
    figure = comparison(LOSS, [course()], "step", options=ChartOptions(scale=Scale.LOG))
    assert figure.layout.yaxis.type == "log"


def test_hostile_names_are_letters():
    for side_by_side in (False, True):
        text = comparison(LOSS, [course(HOSTILE), course("b", 1)], "step", side_by_side=side_by_side).to_json()
        assert "<img" not in text.replace("\\u003c", "<")
