"""A run that begins while the page is open: said, picked by a button, or followed."""

import make_run
from test_pages import texts

from trainvitals.schema import RunSummary, Status
from trainvitals.views import run_picker
from trainvitals.views.follow import newest


def summary(id, started, problem=None):
    return RunSummary(id, id, f"{id}.sqlite", Status.FINISHED, started, started, 0, 1, problem)


def test_the_newest_run_is_the_one_that_began_last_and_can_be_read():
    runs = [summary("a", 1.0), summary("b", 3.0), summary("c", 9.0, "damaged"), summary("d", None)]
    assert newest(runs).id == "b"
    assert newest([]) is None


def test_a_new_run_is_said_and_shown_when_asked_for(open_app, tmp_path):
    first = make_run.record_run(tmp_path, "first", 20)
    app = open_app(tmp_path)
    assert "A new run has begun" not in texts(app)
    second = make_run.record_run(tmp_path, "second", 20)
    run_picker.runs_in.clear()
    app.run()
    assert app.query_params["run"] == first  # nobody is taken away from what they read
    assert "A new run has begun: second" in texts(app)
    app.button(key="show-newest").click().run()
    assert app.query_params["run"] == second
    assert "A new run has begun" not in texts(app)


def test_with_follow_in_the_address_a_new_run_is_shown_by_itself(open_app, tmp_path):
    make_run.record_run(tmp_path, "first", 20)
    app = open_app(tmp_path)
    app.toggle(key="follow").set_value(True).run()
    second = make_run.record_run(tmp_path, "second", 20)
    run_picker.runs_in.clear()
    app.run()
    assert not app.exception
    assert app.query_params["run"] == second
    assert "second · Finished" in texts(app)
