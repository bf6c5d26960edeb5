"""Pictures of verdicts: the first evidence with its onset, lines with names, an axis that says its scale."""

import numpy as np
import pytest

from trainvitals.run import open_run
from trainvitals.schema import Description, Evidence, Question, Reading, Record, Scale, Status, Verdict, VerdictState
from trainvitals.store.writer import RunWriter
from trainvitals.views.run_view import RunView
from trainvitals.views.verdict_pictures import evidence_picture, healthy_pictures, picture

CLASSES = ("0", "1", "2", "3", "4")


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    described = {
        "units.dead": Description("units.dead", "Dead units per layer", Question.WEIGHTS, "s", unit="share of units",
                                  keys="layer"),
        "big": Description("big", "Big numbers", Question.WEIGHTS, "s", unit="logits", scale=Scale.LOG),
    }  # fmt: skip
    writer = RunWriter.create(tmp_path_factory.mktemp("runs"), "r", {}, described)
    for step in range(0, 100, 10):
        shares = np.arange(5) / 10 + step / 1000
        losses = {"loss.train": 2 - step / 100, "loss.heldout": 1 + step / 100, "big": 10.0 ** (step // 10)}
        writer.append(Record(step, 1e9 + step, {"units.dead": Reading(value=shares, keys=CLASSES)}, losses))
    writer.close(Status.FINISHED)
    with open_run(writer.path) as run:
        yield RunView(run)


def drawn(view, evidence, since=40):
    return evidence_picture(view, Verdict("o", "O", VerdictState.ALARM, since, evidence=(evidence,)), evidence)


def names(figure):
    return [t.name for t in figure.data if t.mode and "lines" in t.mode and t.name and not t.name.startswith("level")]


def test_a_loss_is_drawn_beside_the_other_with_the_onset_named(view):
    found = drawn(view, Evidence("loss.heldout", 90, 1.9, "above", 1.5, "the paper"))
    assert found.title == "Loss, train and held-out samples"
    assert names(found.figure) == ["train", "held-out"]
    assert found.figure.layout.showlegend
    assert [shape.x0 for shape in found.figure.layout.shapes] == [40]
    assert "began: step 40" in [a.text for a in found.figure.layout.annotations]
    assert "level 1.5" in [t.name for t in found.figure.data]


@pytest.mark.parametrize("quantity", ["", "loss over its best"])
def test_a_level_of_something_made_from_the_metric_is_not_drawn_into_its_chart(view, quantity):
    value = 1.9 if quantity else 3.3
    found = drawn(view, Evidence("loss.heldout", 90, value, "above", 1.5, "the paper", quantity=quantity))
    assert not [t.name for t in found.figure.data if t.name and t.name.startswith("level")]


def test_one_key_stands_beside_the_median_of_all(view):
    found = drawn(view, Evidence("units.dead", 90, 0.49, "above", 0.4, "", key="4"))
    assert found.title == "Dead units per layer: layer 4"
    assert names(found.figure) == ["layer 4", "median layer"]
    own, median = (t for t in found.figure.data if t.name in ("layer 4", "median layer"))
    assert own.y[-1] == pytest.approx(0.49)
    assert median.y[-1] == pytest.approx(0.29)


def test_many_keys_are_drawn_as_largest_median_and_smallest(view):
    found = drawn(view, Evidence("units.dead", 90, 0.3, "above", 0.4, ""))
    assert names(found.figure) == ["largest layer", "median layer", "smallest layer"]


def test_a_logarithmic_axis_says_so(view):
    log, linear = (drawn(view, Evidence(name, 90, 1.9, "above", 1.5, "")) for name in ("big", "loss.heldout"))
    assert log.figure.layout.yaxis.title.text == "logits, log scale"
    assert "log" not in linear.figure.layout.yaxis.title.text


def test_the_first_evidence_that_was_recorded_is_drawn(view):
    rest = Evidence("big", 90, 1.0, "above", 0.5, "")
    verdict = Verdict("o", "O", VerdictState.ALARM, 40, evidence=(Evidence("gone", 90, 1, "above", 0, ""), rest))
    assert picture(view, verdict).title == "Big numbers"
    assert picture(view, Verdict("o", "O", VerdictState.ALARM, 40)) is None


def test_a_healthy_run_shows_what_was_measured_of_what_carries_it(view):
    assert [p.title for p in healthy_pictures(view)] == ["Loss", "Dead units"]
    notes = ["At step 90: 1.1 train, 1.9 held-out.", "At step 90: 0.49 worst layer."]
    assert [p.note for p in healthy_pictures(view)] == notes
    worst = next(t for t in healthy_pictures(view)[1].figure.data if t.name == "worst layer")
    assert worst.y[-1] == pytest.approx(0.49)


def test_a_sharpness_is_counted_against_its_threshold(tmp_path):
    writer = RunWriter.create(tmp_path, "r", {}, {})
    for step in range(9):
        ratio = {"stability.sharpness": 3.0 if step == 4 else 1.0, "stability.threshold": 2.0}
        writer.append(Record(step, 1e9 + step, scalars=ratio))
    writer.close(Status.FINISHED)
    with open_run(writer.path) as run:
        (found,) = healthy_pictures(RunView(run))
    assert found.note == (
        "Below the threshold at 8 of 9 measurements; above it at step 4, up to 1.5 times as high; below it again at "
        "the next measurement."
    )


def test_lines_that_may_lie_on_each_other_are_told_apart_by_their_strokes(view):
    figure = drawn(view, Evidence("units.dead", 90, 0.5, "above", 0.4, "p", key="3")).figure
    lines = {t.name: t for t in figure.data if t.name in ("layer 3", "median layer")}
    assert (lines["layer 3"].line.dash, lines["median layer"].line.dash) == ("solid", "dash")
    assert (lines["layer 3"].mode, lines["median layer"].mode) == ("lines+markers", "lines")


def test_a_small_picture_has_no_ticks_for_what_is_missing(tmp_path):
    writer = RunWriter.create(tmp_path, "r", {}, {})
    for step in range(9):
        value = Reading.absent("no curvature yet") if step == 0 else Reading(value=1.0)
        losses = {"stability.sharpness": value, "stability.threshold": Reading(value=2.0)}
        writer.append(Record(step, 1e9 + step, losses, {"loss.train": 1.0 - step / 10}))
    writer.close(Status.FINISHED)
    with open_run(writer.path) as run:
        (found,) = (p for p in healthy_pictures(RunView(run)) if "Sharpness" in p.title)
    assert not [t.name for t in found.figure.data if "missing" in str(t.name)]
