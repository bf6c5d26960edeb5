"""Settings of runs, where they differ, and the list that is filtered."""

from trainvitals.schema import RunSummary, Status
from trainvitals.views.runs_table import differences, matching, settings, table

META = {
    "config": {"lr": 0.1, "model": {"depth": 3}, "empty": {}}, "seed": 4,
    "model": {"class": "ConvNet", "num_parameters": 100},
    "optimizer": {"class": "SGD", "groups": [{"lr": 0.1, "momentum": 0.9, "betas": [0.9, 0.99]}]},
    "train_probe": {"num_samples": 64, "hash": "abc"}, "environment": {"torch": "2"},
}  # fmt: skip


def summary(name, tags=(), status=Status.FINISHED, problem=None):
    return RunSummary(f"{name}-1", name, f"{name}.sqlite", status, 0.0, 1.0, 9, 10, problem, tags)


def test_settings_are_flat_and_hold_model_optimiser_and_probe():
    found = settings(META)
    assert found["lr"] == 0.1
    assert found["model.depth"] == 3
    assert found["empty"] == {}
    assert found["model.class"] == "ConvNet"
    assert found["optimizer.momentum"] == 0.9
    assert found["seed"] == 4
    assert found["train_probe (hash of its content)"] == "abc"
    assert not any("environment" in name for name in found)


def test_settings_of_a_run_that_recorded_none():
    assert settings({}) == {}
    assert settings({"config": None, "optimizer": {"groups": []}}) == {}


def test_only_what_differs_is_shown_and_an_absent_setting_differs():
    rows = differences({"a": {"lr": 0.1, "same": 1}, "b": {"lr": 0.1, "same": 1, "wd": 0}})
    assert rows.to_dict("list") == {"Setting": ["wd"], "a": ["–"], "b": ["0"]}
    assert differences({"a": {"x": 1}, "b": {"x": 1}}).empty


def test_true_is_not_the_number_one():
    assert differences({"a": {"x": True}, "b": {"x": 1}}).to_dict("list")["a"] == ["True"]


def test_the_list_is_filtered_by_words_tags_and_status():
    runs = [summary("digits-cnn", ("base",)), summary("digits-mlp", ("base", "old"), Status.CRASHED),
            summary("broken", problem="damaged")]  # fmt: skip
    names = lambda *given: [run.name for run in matching(runs, *given)]  # noqa: E731
    assert names("", [], []) == ["digits-cnn", "digits-mlp"]
    assert names("DIGITS mlp", [], []) == ["digits-mlp"]
    assert names("", ["base", "old"], []) == ["digits-mlp"]
    assert names("", [], ["finished"]) == ["digits-cnn"]


def test_the_table_has_a_row_a_run():
    rows = table([summary("a", ("t",)), summary("b")])
    assert rows["Run"].tolist() == ["a", "b"]
    assert rows["Tags"].tolist() == [["t"], []]
    assert table([]).empty
