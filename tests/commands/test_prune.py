import json

import pytest
from typer.testing import CliRunner

from trainvitals.cli import app
from trainvitals.schema import Record
from trainvitals.store.catalogue import list_folder
from trainvitals.store.writer import RunWriter


def call(*words, code=0):
    result = CliRunner().invoke(app, ["prune", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def store(tmp_path):
    """Three runs that have ended, the second tagged, and a live one."""
    for name in ("one", "two", "three"):
        with RunWriter.create(tmp_path, name, {}, {}) as writer:
            writer.append(Record(1, 0.0, scalars={"a": 1.0}))
            if name == "two":
                writer.header("tags", ["scratch"])
    live = RunWriter.create(tmp_path, "live", {}, {})
    yield tmp_path
    live.close()


def names(store):
    return {run.name for run in list_folder(store)}


def test_without_yes_it_only_shows(store):
    output = call("--store", store, "--keep-last", 1).output
    assert output.count("would go: ") == 2
    assert "nothing was deleted; --yes deletes them" in output
    assert names(store) == {"one", "two", "three", "live"}


def test_with_yes_it_deletes_what_has_ended(store):
    output = call("--store", store, "--keep-last", 0, "--yes").output
    assert "3 deleted" in output
    assert names(store) == {"live"}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--tag", "scratch"], {"one", "three", "live"}),
        (["--keep-last", "0", "--keep-tag", "scratch"], {"two", "live"}),
        (["--older-than", "1d"], {"one", "two", "three", "live"}),
        (["--max-size", "1B"], {"live"}),
        (["--max-size", "1GB"], {"one", "two", "three", "live"}),
    ],
)
def test_each_rule_leaves_the_others(store, words, left):
    call("--store", store, *words, "--yes")
    assert names(store) == left


def test_as_json(store):
    (one,) = json.loads(call("--store", store, "--tag", "scratch", "--json", "--yes").stdout)
    assert (one["name"], one["deleted"], one["reason"]) == ("two", True, "tagged scratch")
    assert one["num_bytes"] > 0


@pytest.mark.parametrize("words", [[], ["--older-than", "soon"], ["--max-size", "much"], ["--keep-last", "-1"]])
def test_no_rule_and_odd_rules_are_wrong_usage(store, words):
    call("--store", store, *words, "--yes", code=2)
    assert len(names(store)) == 4


def test_an_address_is_refused():
    call("--store", "postgresql://host/runs", "--keep-last", 1, "--yes", code=2)


def test_nothing_to_do_says_so(tmp_path):
    assert "No run of" in call("--store", tmp_path, "--keep-last", 0).output
