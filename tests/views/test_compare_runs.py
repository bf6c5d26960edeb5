"""The page that compares runs, driven as a reader would."""

import time

import make_run
import numpy as np
import pytest
from conftest import HOSTILE, PAGES
from test_pages import charts, texts

from trainvitals.annotating import note_run, tag_run
from trainvitals.schema import Reading, Record, Status
from trainvitals.store.writer import RunWriter

PAGE = next(page for page in PAGES if page.stem == "compare_runs")


def record(folder, name, lr, num_steps=60, tokens=True):
    writer = RunWriter.create(folder, name, {"config": {"lr": lr, "same": 1}}, make_run.descriptions())
    start = time.time() - 100
    for step in range(0, num_steps + 1, 10):
        loss = 2.0 * np.exp(-lr * step)
        logged = {"tokens": 32.0 * step} if tokens else {}
        writer.append(Record(step, start + step, {"loss.train": Reading(value=loss),
                                                  "hessian.top": Reading(value=np.array([10 * lr / loss, 1.0]),
                                                                         keys=("1", "2"))}, logged))  # fmt: skip
    writer.close(Status.FINISHED)
    return writer.id


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    ids = [record(folder, "slow", 0.01), record(folder, "fast", 0.05, tokens=False)]
    tag_run(ids[0], folder, ["base"])
    note_run(ids[0], folder, "the first try")
    return folder, ids


def tables(app):
    return [part.value for part in app.dataframe]


def test_two_runs_are_compared_at_once_with_what_differs(open_app, runs):
    app = open_app(runs[0], PAGE)
    assert not app.exception
    assert charts(app) == 2  # loss.train and the first of hessian.top
    ended = next(table for table in tables(app) if "Note" in table)
    assert sorted(ended["Run"]) == ["fast", "slow"]
    slow = ended.set_index("Run").loc["slow"]
    assert list(slow["Tags"]) == ["base"]
    assert slow["Note"].endswith("the first try")
    settings = next(table for table in tables(app) if "Setting" in table)
    assert settings["Setting"].tolist() == ["lr"]
    assert set(settings.iloc[0]) == {"lr", "0.01", "0.05"}


def test_at_the_same_train_loss_the_slow_run_decides_the_level(open_app, runs):
    app = open_app(runs[0], PAGE)
    app.segmented_control(key="align").set_value("train loss").run()
    assert not app.exception
    matched = tables(app)[0].set_index("Run")
    assert matched.loc["slow", "Step"] == 60
    assert matched["loss.train"].tolist() == pytest.approx([2 * np.exp(-0.6)] * 2)
    assert 10 < matched.loc["fast", "Step"] < 20
    assert matched.loc["fast", "hessian.top"] > matched.loc["slow", "hessian.top"]


def test_a_run_without_tokens_is_named_below_the_chart(open_app, runs):
    app = open_app(runs[0], PAGE)
    app.segmented_control(key="align").set_value("tokens").run()
    assert not app.exception
    assert "or of tokens: fast" in texts(app)


def test_side_by_side_by_time(open_app, runs):
    app = open_app(runs[0], PAGE)
    app.segmented_control(key="layout").set_value("side by side")
    app.segmented_control(key="align").set_value("time").run()
    assert not app.exception
    assert charts(app) == 2


def test_one_run_alone_says_what_to_do(open_app, runs):
    folder, ids = runs
    app = open_app(folder, PAGE)
    app.multiselect(key="runs").set_value([ids[0]]).run()
    assert not app.exception
    assert "Pick two runs or more" in app.info[0].value
    app.multiselect(key="runs").set_value([]).run()
    assert not app.exception
    assert charts(app) == 0


def test_hostile_names_of_two_runs_are_text(open_app, tmp_path):
    for lr in (0.01, 0.02):
        record(tmp_path, HOSTILE, lr)
    app = open_app(tmp_path, PAGE)
    assert not app.exception
    assert not app.error
    assert charts(app) == 2
