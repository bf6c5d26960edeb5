"""Every page file, over real recorded runs: finished, live, crashed, hostile, empty, unknown."""

import re
import subprocess
import sys
import time

import make_run
import numpy as np
import pytest
from conftest import APP, HOSTILE, PAGES

from trainvitals.run import open_run
from trainvitals.schema import Chart, Description, Event, Question, Reading, Record, Status
from trainvitals.store.writer import RunWriter
from trainvitals.views import run_picker
from trainvitals.views.dashboard import ORDER

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def titles(app) -> set[str]:
    """The titles of the cards, and of the definitions behind their folds."""
    return {m.value.split("**")[1].replace("\\", "").replace("\u2060", "")
            for m in app.markdown if m.value.startswith("**")}  # fmt: skip


def texts(app) -> str:
    parts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.text]
    return "\n".join(str(part.value) for part in parts).replace("\\", "").replace("\u2060", "")


def charts(app) -> int:
    return len(app.get("plotly_chart"))


def record(folder, name="run", descriptions=(), records=(), events=(), status=Status.FINISHED) -> RunWriter:
    writer = RunWriter.create(folder, name, {}, {d.name: d for d in descriptions})
    for one in records:
        writer.append(one)
    for one in events:
        writer.event(one)
    assert writer.flush(30)
    if status is not None:
        writer.close(status)
    return writer


def test_the_pages_are_the_files_of_the_folder():
    assert sorted(file for file, *_ in ORDER) == [page.name for page in PAGES]
    assert {str(q) for q in Question} <= {title for _, title, *_ in ORDER}


@by_page
def test_a_page_shows_a_real_run(open_app, store, page):
    app = open_app(store, page)
    assert not app.exception
    assert not app.error
    assert charts(app) >= 2
    assert "digits-cnn" in texts(app)


def test_every_metric_of_the_run_is_on_a_page(open_app, store):
    shown = set()
    for page in PAGES:
        shown |= titles(open_app(store, page))
        with open_run("latest", store) as run:
            known = dict(run.descriptions)
    assert not {d.title for d in known.values()} - shown


@by_page
def test_without_a_store_folder_a_page_says_what_to_do(open_app, tmp_path, page):
    app = open_app(tmp_path / "nowhere", page)
    assert not app.exception
    assert "trainvitals demo" in app.info[0].value


@by_page
def test_an_empty_store_says_what_to_do(open_app, tmp_path, page):
    app = open_app(tmp_path, page)
    assert not app.exception
    assert "tv.watch" in app.info[0].value


@by_page
def test_a_run_without_points_says_what_to_do(open_app, tmp_path, page):
    writer = record(tmp_path, status=None)
    try:
        app = open_app(tmp_path, page)
        assert not app.exception
        assert app.info
        assert charts(app) == 0
    finally:
        writer.close(Status.FINISHED)


@pytest.mark.parametrize(("status", "word"), [(Status.CRASHED, "Crashed"), (Status.FINISHED, "Finished")])
def test_the_status_is_said_in_words(open_app, tmp_path, status, word):
    make_run.record_run(tmp_path, num_steps=40, status=status)
    app = open_app(tmp_path)
    assert not app.exception
    assert word in texts(app)


def test_a_live_run_shows_its_new_points(open_app, tmp_path):
    writer = RunWriter.create(tmp_path, "live", {}, make_run.descriptions())
    rng = np.random.default_rng(0)
    try:
        writer.append(Record(0, time.time(), make_run.readings(0, rng)))
        assert writer.flush(30)
        app = open_app(tmp_path)
        assert "Live" in texts(app)
        assert app.metric[0].value == "0"
        writer.append(Record(10, time.time(), make_run.readings(10, rng)))
        assert writer.flush(30)
        app.run()
        assert app.metric[0].value == "10"
    finally:
        writer.close(Status.FINISHED)


@by_page
def test_hostile_names_are_shown_as_text(open_app, tmp_path, page):
    question = next(title for file, title, *_ in ORDER if file == page.name)
    describe = [Description(HOSTILE, HOSTILE, question, HOSTILE, formula="$$" + HOSTILE, unit=HOSTILE,
                            undefined=HOSTILE, source=HOSTILE, chart=Chart.HEATMAP, keys=HOSTILE),
                *make_run.descriptions().values()]  # fmt: skip
    reading = Reading(value=np.array([1.0, 2.0]), keys=(HOSTILE, "b"))
    rng = np.random.default_rng(0)
    record(tmp_path, HOSTILE, describe, [
        Record(0, time.time(), {**make_run.readings(0, rng), HOSTILE: reading}, {HOSTILE + "loss": 1.0}),
        Record(1, time.time(), {HOSTILE: Reading.absent(HOSTILE)}),
    ], [Event(0, time.time(), HOSTILE, HOSTILE)])  # fmt: skip
    app = open_app(tmp_path, page)
    assert not app.exception
    assert not app.error
    for part in [*app.markdown, *app.caption, *app.info, *app.error, *app.warning, *app.expander]:
        words = str(getattr(part, "value", "") or getattr(part, "label", ""))
        assert not re.search(r"(?<!\\)(<img|\[l\]|\$x\$|\*b\*|:smile:)", words.strip("*")), words
        assert not getattr(part, "allow_html", False)


def test_a_metric_that_the_app_has_never_heard_of_gets_a_card_on_its_page(open_app, tmp_path):
    describe = [Description("odd.new", "Brand new", Question.GRADIENTS, "s"),
                Description("odd.other", "Of no page", "What is the weather?", "s")]  # fmt: skip
    reading = Reading(value=1.0)
    record(tmp_path, "r", describe, [Record(0, 0.0, {"odd.new": reading, "odd.other": reading}, {"my_metric": 2.0})])
    pages = {page.stem: page for page in PAGES}
    assert "Brand new" in titles(open_app(tmp_path, pages["do_the_gradients_agree"]))
    first = titles(open_app(tmp_path, pages["is_anything_wrong"]))
    assert {"Of no page", "my_metric"} <= first


def test_logged_losses_stand_on_the_overfitting_page(open_app, tmp_path):
    record(tmp_path, records=[Record(0, 0.0, scalars={"my_loss": 1.0, "lr": 0.1})])
    page = next(p for p in PAGES if p.stem == "is_it_overfitting")
    shown = titles(open_app(tmp_path, page))
    assert "my_loss" in shown
    assert "lr" not in shown


def test_an_always_missing_metric_says_why_in_its_card(open_app, tmp_path):
    describe = [Description("odd", "Odd", Question.WEIGHTS, "s")]
    record(tmp_path, "r", describe, [Record(0, 0.0, {"odd": Reading.absent("one class in the probe batch")})])
    app = open_app(tmp_path, next(p for p in PAGES if p.stem == "which_weights_grow"))
    assert any("one class in the probe batch" in info.value for info in app.info)


def test_a_page_names_what_would_record_an_absent_metric(open_app, tmp_path):
    record(tmp_path, records=[Record(0, 0.0, {"loss.train": Reading(value=1.0)})])
    app = open_app(tmp_path, next(p for p in PAGES if p.stem == "how_sharp_is_it"))
    assert "Nothing that answers" in texts(app)
    assert '"hessian.top"' in app.code[0].value
    assert "probes=[" in app.code[0].value


def test_the_address_chooses_the_run_and_keeps_it(open_app, tmp_path):
    first = make_run.record_run(tmp_path, "first", 20)
    second = make_run.record_run(tmp_path, "second", 20)
    assert open_app(tmp_path).query_params["run"] == second  # the newest by default
    app = open_app(tmp_path, run_id=first)
    assert "first" in texts(app)
    app.switch_page(str(PAGES[0].relative_to(APP.parent))).run()
    assert app.query_params["run"] == first
    assert "first" in texts(app)


def test_chosen_steps_cut_the_charts(open_app, store):
    app = open_app(store, next(p for p in PAGES if p.stem == "which_weights_grow"))
    app.number_input(key="from").set_value(1000).run()
    assert not app.exception
    assert charts(app) == 0
    assert all("chosen steps" in info.value for info in app.info)
    app.number_input(key="from").set_value(50).run()
    assert charts(app) >= 2


def test_picking_a_run_puts_it_in_the_address(open_app, tmp_path):
    first = make_run.record_run(tmp_path, "first", 20)
    make_run.record_run(tmp_path, "second", 20)
    app = open_app(tmp_path)
    app.selectbox(key="picked_run").set_value(first).run()
    assert app.query_params["run"] == first
    assert "first · Finished" in texts(app)


@pytest.mark.parametrize("wanted", ["no-such-run", "../other", "/etc/passwd"])
def test_an_address_opens_only_runs_of_the_store(open_app, tmp_path, wanted):
    folder = tmp_path / "store"
    folder.mkdir()
    make_run.record_run(folder, num_steps=20)
    outside = record(tmp_path, "other")
    for run_id in (wanted, str(outside.path)):
        app = open_app(folder, run_id=run_id)
        assert not app.exception
        assert "There is no run" in app.warning[0].value
        assert charts(app) == 0


def test_an_unreadable_file_is_named_with_its_reason_and_others_open(open_app, tmp_path):
    make_run.record_run(tmp_path, "good", 20)
    (tmp_path / "broken.sqlite").write_bytes(b"this is no database" * 100)
    assert "good" in texts(open_app(tmp_path))
    app = open_app(tmp_path, run_id="broken")
    assert not app.exception
    assert "cannot be read" in app.error[0].value


def test_the_views_never_import_torch():
    code = ("import sys, pkgutil, importlib, trainvitals.views as v\n"
            "[importlib.import_module(m.name) for m in pkgutil.iter_modules(v.__path__, 'trainvitals.views.')]\n"
            "import trainvitals.run\nassert 'torch' not in sys.modules")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True, cwd=APP.parent)


def test_the_stability_page_names_the_largest_spike_and_the_share_without_a_loss(open_app, tmp_path):
    known = make_run.descriptions()
    record(tmp_path, "r", [known["spike"], known["softmax_collapse"]], [
        Record(step, 0.0, {"spike": Reading(value=z), "softmax_collapse": Reading(value=share)})
        for step, z, share in ((0, 1.0, 0.0), (10, 9.5, 0.125), (20, -30.0, 0.25))
    ])  # fmt: skip
    shown = texts(open_app(tmp_path, next(p for p in PAGES if p.stem == "is_it_stable")))
    assert "jump of the train loss at step 10, 9.5 robust standard deviations" in shown
    assert "25 % of the train samples have a loss of exactly 0" in shown


def test_an_options_text_of_before_is_nobodys_choice(monkeypatch):
    """A live run's text changes when it ends; the browser may still send the old one."""
    state, address = {"picked_run": "digits · live"}, {}
    monkeypatch.setattr(run_picker.st, "session_state", state)
    monkeypatch.setattr(run_picker.st, "query_params", address)
    run_picker._picked(("digits-1",))
    assert (state, address) == ({"picked_run": "digits · live"}, {})
    state["picked_run"] = "digits-1"
    run_picker._picked(("digits-1",))
    assert address == {"run": "digits-1"}
    assert state["shown_run"] == "digits-1"
