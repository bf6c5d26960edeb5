"""The first page's tables: what was measured last, in the order of the pages."""

import numpy as np
import pytest

from trainvitals.run import open_run
from trainvitals.schema import Description, Question, Reading, Record, Status
from trainvitals.store.writer import RunWriter
from trainvitals.views import health
from trainvitals.views.run_view import RunCache, RunView


@pytest.mark.parametrize(
    ("reading", "text"),
    [
        (Reading(value=1.25, error=0.5), "1.25 ± 0.5"),
        (Reading(value=2.0, converged=False), "2 (not converged)"),
        (Reading(value=np.array([-0.5]), error=np.array([0.25])), "−0.5 ± 0.25"),
        (Reading(value=np.array([0.5, np.nan, 3.0])), "0.5 to 3 (3)"),
        (Reading(value=np.array([np.nan, np.inf])), "no finite value among 2"),
        (Reading(value=np.ones(7), details={"grid": np.arange(7)}), "density on 7 points"),
        (Reading.absent("one class only"), "missing: one class only"),
        (Reading(), "missing"),
    ],
)
def test_a_reading_is_one_short_text(reading, text):
    assert health.summarised(reading) == text


def test_latest_values_stand_in_the_order_of_the_pages_numbers_first_logged_ones_last(tmp_path):
    writer = RunWriter.create(tmp_path, "r", {}, {
        "a": Description("a", "Growth", Question.WEIGHTS, "s"), "d": Description("d", "Odd", "What else?", "s"),
        "b": Description("b", "Layers", Question.OVERFITTING, "s"),
        "c": Description("c", "Loss", Question.OVERFITTING, "s"),
    })  # fmt: skip
    writer.append(Record(3, 0.0, {
        "a": Reading(value=1.0), "d": Reading(value=1.0),
        "b": Reading(value=np.ones(2)), "c": Reading.absent("no data"),
    }, {"a_loss": 1.0, "lr": 0.1}))  # fmt: skip
    writer.close(Status.FINISHED)
    with open_run("latest", tmp_path) as run:
        view = RunView(run)
        table, undefined, words = health.latest_table(view), health.missing_now(view), health.one_line(view)
        without = health.without_value(view)
    assert list(table["Metric"]) == ["Loss", "Layers", "a_loss", "Growth", "lr", "Odd"]
    assert list(table["Question"].drop_duplicates()) == [Question.OVERFITTING, Question.WEIGHTS, "", "What else?"]
    assert table["Latest"].iloc[0] == "does not apply"
    assert undefined == ["Loss"]
    assert words == "6 metrics recorded; no warnings."
    assert without.values.tolist() == [["Loss", "does not apply: no data"]]


def test_a_second_point_of_the_same_step_is_seen_at_once(tmp_path):
    writer, cache = RunWriter.create(tmp_path, "r", {}, {}), RunCache()
    try:
        for value in (1.0, 2.0, float("nan")):
            writer.append(Record(5, 0.0, scalars={"x": value}))
            assert writer.flush(30)
            with open_run("latest", tmp_path) as run:
                view = RunView(run, cache)
                last, token = view.points("x")["value"].iloc[-1], view.token("x")
                assert last == value or (np.isnan(value) and np.isnan(last))
                assert RunView(run, cache).token("x") == token  # nothing new: nothing is drawn again
        assert len(cache.points["x"].table) == 3
    finally:
        writer.close(Status.FINISHED)


def test_the_cost_table_says_how_many_steps_apart_metrics_are_measured_now(tmp_path):
    metrics = ("gap.loss", "oui", "loss.train")
    described = {name: Description(name, name, Question.OVERFITTING, "") for name in metrics}
    described["probe.interval"] = Description("probe.interval", "Steps between measurements", "", "", keys="metric")
    meta = {"probes": {"gap": "every 50 steps", "oui": "every step", "loss.train": "10 steps a decade"}, "budget": 0.02}
    with RunWriter.create(tmp_path, "costs", meta, described) as writer:
        for step, seconds in ((0, 0.5), (400, 0.25)):
            readings = {name: Reading(value=1.0, seconds=seconds) for name in metrics}
            plan = {"probe.interval": Reading(value=[400.0], keys=("gap",))}
            writer.append(Record(step, 1000.0 + step, readings | plan, {"probe.share": 0.01, "probe.seconds": seconds}))
    with open_run("costs", store=tmp_path) as run:
        view = RunView(run, RunCache())
        table = health.cost_table(view).set_index("Name")
        assert table["Steps apart, now"].fillna(0).to_dict() == {"gap.loss": 400, "oui": 1, "loss.train": 0}
        assert table.loc["oui", "Seconds each"] == pytest.approx(0.375)
        assert table.loc["oui", "Measured"] == 2
        drawn = {d.name: [line.value for line in d.references] for d in health.cost_descriptions(view)}
        assert drawn == {"probe.seconds": [], "probe.share": [0.02], "probe.interval": []}
