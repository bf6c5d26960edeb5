"""Steps that were dragged over in a chart."""

import math

import pytest

from trainvitals.views import step_range
from trainvitals.views.step_range import dragged, stretch_of


@pytest.mark.parametrize(("boxes", "expected"), [
    ([], None), ([{"y": [0, 1]}], None), ([{"x": [5.2, 5.9]}], (5, 6)), ([{"x": [-40.0, 3.5]}], (0, 4)),
    ([{"x": [1, 2]}, {"x": [90.0, 10.0]}], (10, 90)), ([{"x": [math.nan, 3]}], None), ([{"x": [-9.0, -2.0]}], None),
], ids=["none", "no steps", "within one", "before the start", "the last one", "NaN", "all before"])  # fmt: skip
def test_the_last_stretch_counts_in_whole_steps(boxes, expected):
    assert stretch_of(boxes) == expected


def test_a_drag_sets_the_steps_of_all_charts(monkeypatch):
    state = {"chart-a": {"selection": {"box": [{"x": [10.4, 90.2], "y": [0, 1]}]}}}
    monkeypatch.setattr(step_range.st, "session_state", state)
    dragged("chart-a")
    assert (state["from"], state["to"], state["steps_dragged"]) == (10, 91, True)


@pytest.mark.parametrize("event", [None, {"selection": {"box": []}}])
def test_a_double_click_and_a_lost_chart_change_nothing(monkeypatch, event):
    state = {"chart-a": event, "from": 3}
    monkeypatch.setattr(step_range.st, "session_state", state)
    dragged("chart-a")
    assert state == {"chart-a": event, "from": 3}
