"""Tags and notes of runs: by the training program, by the command line later, and never by two writers at once."""

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

import trainvitals as tv
from trainvitals.annotating import note_run, tag_run
from trainvitals.cli import app
from trainvitals.schema import Record
from trainvitals.store.errors import StoreError
from trainvitals.store.writer import RunWriter

SECRET = "hunter2-Zq7"


@pytest.fixture
def run(tmp_path):
    writer = RunWriter.create(tmp_path, "mlp", {}, {})
    writer.append(Record(1, 0.0, {}, {"loss": 1.0}))
    writer.close()
    return writer


def test_tags_and_notes_are_kept_in_the_run_file_and_in_lists(tmp_path, run):
    assert tag_run("mlp", tmp_path, ["a", "b", "a"]) == ["a", "b"]
    assert tag_run("mlp", tmp_path, ["c"], ["a", "never given"]) == ["b", "c"]
    assert note_run("latest", tmp_path, "first") == "first"
    assert note_run("latest", tmp_path, f"token={SECRET}") == "first\ntoken=***"
    moved = run.path.rename(tmp_path / "moved.sqlite")
    with tv.open_run(moved) as found:
        assert found.tags == ("b", "c")
        assert found.note == "first\ntoken=***"
        assert found.damage() == []
        assert found.series("loss")["value"].tolist() == [1.0]
    assert tv.list_runs(tmp_path)[0].tags == ("b", "c")
    assert SECRET.encode() not in moved.read_bytes()


def test_the_command_line_gives_takes_and_shows(tmp_path, run):
    def call(*words, code=0):
        result = CliRunner().invoke(app, [*words, "--store", str(tmp_path)])
        assert result.exit_code == code, result.output
        return result.output.strip()

    assert call("tag", "mlp") == "no tags"
    assert call("tag", "mlp", "x", "\x1b[31my") == "x, \\x1b[31my"
    assert call("tag", "mlp", "--remove", "x") == "\\x1b[31my"
    assert call("note", "mlp") == "no note"
    assert call("note", "mlp", "one") == "one"
    assert call("note", "mlp") == "one"
    assert "tags       \\x1b[31my" in call("show", "mlp")
    call("tag", "no such run", "x", code=2)
    call("note", "mlp", "  ", code=1)


def test_a_run_that_is_being_written_is_left_to_its_trainer(tmp_path):
    with RunWriter.create(tmp_path, "live", {}, {}) as writer:
        with pytest.raises(StoreError, match="expected"):
            tag_run("live", tmp_path, ["x"])
        writer.header("tags", ["mine"])
        writer.flush()
        assert tv.open_run(writer.path).tags == ("mine",)


@pytest.mark.parametrize("tag", ["", "  ", "x" * 129, 5])
def test_what_is_no_short_text_is_no_tag(tmp_path, run, tag):
    with pytest.raises(StoreError, match="expected a tag"):
        tag_run("mlp", tmp_path, [tag])
    assert tv.open_run(run.path).tags == ()


def test_a_watch_records_tags_notes_settings_and_the_environment_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--api-key", SECRET])
    model = torch.nn.Linear(2, 1)
    x, y = torch.randn(8, 2), torch.randn(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with tv.watch(model, optimizer, loss=F.mse_loss, train=(x, y), store=tmp_path, probes="light", every=1,
                  config={"lr": 0.1, "password": SECRET}) as run:  # fmt: skip
        run.tag("one")
        run.tag("two", "one")
        run.note("first")
        run.note(f"then password={SECRET}")
        with pytest.warns(RuntimeWarning, match="expected a tag"):
            run.tag("")
        with pytest.warns(RuntimeWarning, match="expected a note"):
            run.note("")
    with tv.open_run(run.path) as found:
        assert found.tags == ("one", "two")
        assert found.note == "first\nthen password=***"
        assert found.meta["config"] == {"lr": 0.1, "password": "***"}
        assert found.meta["command"] == ["train.py", "--api-key", "***"]
        assert found.meta["environment"]["packages"]["torch"] == torch.__version__
    assert SECRET.encode() not in run.path.read_bytes()


def test_settings_that_are_none_are_refused_before_training(tmp_path):
    model = torch.nn.Linear(2, 1)
    x, y = torch.randn(8, 2), torch.randn(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match="expected a mapping"):
        tv.watch(model, optimizer, loss=F.mse_loss, train=(x, y), store=tmp_path, config=3)
    assert list(tmp_path.iterdir()) == []
