"""The page Checkpoints over a run as an analysis writes it, without torch: timeline, table, plane, barriers, a pair."""

from __future__ import annotations

import time
from pathlib import Path

import make_run
import numpy as np
import pytest
from conftest import APP, HOSTILE

from trainvitals.run import open_run
from trainvitals.schema import Chart, Description, Event, Question, Reading, Record, Status
from trainvitals.store.writer import RunWriter
from trainvitals.views import path_charts
from trainvitals.views.checkpoint_tables import compared, left_out, matrix, of_pair, steps_of, table
from trainvitals.views.run_view import RunView

PAGE = APP.parent / "trainvitals/views/app_pages/checkpoints.py"
STEPS = (0, 100, 200, 400)


def describe(name: str, chart: Chart = Chart.LINE) -> Description:
    return Description(name, f"Title of {name}", Question.CHECKPOINTS, "What it shows.", unit="loss", chart=chart)


def record(folder: Path, label: str = "step_0.pt") -> str:
    names = {"path.pca.coordinates": Chart.LINES, "path.pca.explained": Chart.HEATMAP, "path.landscape": Chart.HEATMAP,
             "path.barrier.height": Chart.LINE, "path.barrier.curve": Chart.HEATMAP, "path.cka.between": Chart.HEATMAP,
             "path.barrier.ends.curve": Chart.HEATMAP, "path.barrier.ends.height": Chart.LINE,
             "path.distance.between": Chart.HEATMAP, "path.distance.initial": Chart.LINE}  # fmt: skip
    described = {name: describe(name, chart) for name, chart in names.items()} | make_run.descriptions()
    meta = {"checkpoints": {"num": 4, "unit": "step", "labels": {str(step): f"{label}{step}" for step in STEPS}}}
    writer, rng = RunWriter.create(folder, "checkpoints", meta, described), np.random.default_rng(0)
    keys = tuple(map(str, STEPS))
    distances = np.abs(np.subtract.outer(STEPS, STEPS)).astype(float)
    for i, step in enumerate(STEPS):
        readings = {
            **make_run.readings(step, rng), "path.distance.initial": Reading(float(step)),
            "path.pca.coordinates": Reading(np.array([step - 150.0, i % 2, 0.1]), keys=("PC1", "PC2", "PC3")),
        }  # fmt: skip
        if i:
            readings["path.barrier.height"] = Reading(0.25 * i)
            readings["path.barrier.curve"] = Reading(np.array([2.0, 3.0 + i, 1.0]), keys=("0", "0.5", "1"))
        if step == STEPS[-1]:
            axis = {"x": np.linspace(-200, 300, 5), "y": np.linspace(-1, 2, 4)}
            readings |= {
                "path.pca.explained": Reading(np.array([0.9, 0.08, 0.02]), keys=("PC1", "PC2", "PC3")),
                "path.landscape": Reading(rng.random((4, 5)) + 0.1, keys=("a", "b", "c", "d"), details=axis),
                "path.barrier.ends.curve": Reading(np.array([2.0, 1.5, 1.0]), keys=("0", "0.5", "1")),
                "path.barrier.ends.height": Reading(0.5),
                "path.distance.between": Reading(distances, keys=keys),
                "path.cka.between": Reading(np.eye(4), keys=keys),
            }
        writer.append(Record(step, time.time(), readings))
    writer.event(Event(300, time.time(), "checkpoint", f"expected a whole checkpoint, got half of one {label}"))
    assert writer.flush(30)
    writer.close(Status.FINISHED)
    return writer.id


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("runs")
    record(found)
    return found


@pytest.fixture
def view(folder) -> RunView:
    return RunView(open_run("latest", folder))


def test_the_page_shows_path_table_and_a_pair(open_app, folder):
    app = open_app(folder, PAGE)
    assert not app.exception
    assert not app.error
    words = "\n".join(m.value for m in [*app.markdown, *app.caption]).replace("\\", "").replace("\u2060", "")
    assert "4 checkpoints from step 0 to 400" in words
    assert "Two components hold 98 %" in words
    assert "highest barrier between neighbours is 0.75, on the way to step 400" in words
    assert "from the first to the last it is 0.5" in words
    assert "got half of one" in words
    for title in ("Timeline", "Path on its plane", "Barriers between neighbours", "Lines between checkpoints",
                  "All checkpoints", "Two checkpoints compared", "Title of path.distance.between"):  # fmt: skip
        assert f"**{title}**" in words, title
    assert {m.label: m.value for m in app.metric}["Distance"] == "400"
    assert len(app.dataframe) == 2


def test_two_other_checkpoints_are_compared_when_picked(open_app, folder):
    app = open_app(folder, PAGE)
    app.selectbox(key="checkpoint-a").set_value(100).run()
    assert not app.exception
    assert {m.label: m.value for m in app.metric}["Distance"] == "300"
    assert list(app.dataframe[1].value.columns[1:3]) == ["step 100", "step 400"]


def test_hostile_labels_and_reasons_are_shown_as_text(open_app, tmp_path):
    record(tmp_path, HOSTILE)
    app = open_app(tmp_path, PAGE)
    assert not app.exception
    for part in [*app.markdown, *app.caption]:
        assert "<img" not in part.value.replace("\\<img", "")


def test_tables_hold_what_was_measured(view):
    rows = table(view)
    assert rows["step"].tolist() == list(STEPS) == steps_of(view)
    assert rows["checkpoint"].tolist() == [f"step_0.pt{step}" for step in STEPS]
    assert rows["Title of path.distance.initial"].tolist() == list(map(float, STEPS))
    assert np.isnan(rows["Title of path.barrier.height"].iloc[0])
    both = compared(view, 0, 400).set_index("Metric")
    assert both.loc["Title of path.distance.initial"].tolist()[:3] == [0.0, 400.0, 400.0]
    assert left_out(view)["step"].tolist() == [300]
    assert of_pair(view, "path.distance.between", 100, 400) == 300.0
    assert of_pair(view, "path.distance.between", 100, 7) is None
    assert of_pair(view, "path.angle.between", 100, 400) is None
    assert matrix(view, "path.landscape") is None  # its keys are no steps


def test_charts_hold_the_path_its_surface_and_the_chords(view):
    coordinates = view.points("path.pca.coordinates").pivot_table(index="step", columns="key", values="value")
    surface = view.latest["path.landscape"][1]
    figure = path_charts.plane(view.descriptions["path.pca.coordinates"], coordinates, [0.9, 0.08],
                               {**surface.details, "losses": surface.value})  # fmt: skip
    contour, path = figure.data[:2]
    assert (contour.type, len(contour.x), len(contour.y)) == ("contour", 5, 4)
    assert list(path.x) == [step - 150.0 for step in STEPS]
    assert figure.layout.xaxis.title.text == "component 1 (90 % of the variance)"
    alone = path_charts.plane(view.descriptions["path.pca.coordinates"], coordinates[["PC1"]], [1.0], None)
    assert list(alone.data[0].y) == [0.0] * 4
    curves = {"a": (np.linspace(0, 1, 3), np.array([2, 5, 1]))}
    lines = path_charts.between(view.descriptions["path.barrier.curve"], curves)
    assert list(lines.data[1].y) == [2, 1]
    pairs = path_charts.pairs(view.descriptions["path.distance.between"], [0, 100], np.array([[0.0, 3.0], [3.0, 0.0]]))
    assert pairs.data[0].customdata[0][1] == "steps 0 and 100: 3"
