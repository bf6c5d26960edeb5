"""The command line as a user and a script meet it: text, exit codes, JSON, CSV, hostile names."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trainvitals.cli import app
from trainvitals.schema import Description, Event, Question, Reading, Record, Status
from trainvitals.store.writer import RunWriter

HOSTILE = "\x1b[31m[red]run[/red]\x1b]0;owned\x07\n=cmd()"
CHECKOUT = Path(__file__).parent.parent


def record(folder: Path, name: str = "mlp", num_steps: int = 30) -> str:
    """Record a small run as the probes would and return its id."""
    words = Description("loss.train", "Loss on the train probe", Question.OVERFITTING, "How well it fits.")
    writer = RunWriter.create(folder, name, {"model": {"class": "MLP", "num_parameters": 7}}, {words.name: words})
    for step in range(num_steps):
        value = math.nan if step == 3 else 1 / (step + 1)
        readings = {
            "loss.train": Reading(value, error=0.5, seconds=0.25),
            "weights": Reading(np.array([1.0, -2.0]), keys=("=cmd()", "\x1b[2Jfc")),
            "nc1": Reading.absent("only one class in the probe batch"),
        }
        writer.append(Record(step, time.time(), readings, {"mine": float(step)}))
    writer.event(Event(num_steps, time.time(), "warning", HOSTILE))
    writer.close(Status.FINISHED)
    return writer.id


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    record(folder)
    (folder / "broken.sqlite").write_bytes(b"not a database, not at all" * 100)
    return folder


@pytest.fixture(scope="module")
def run_id(store) -> str:
    return next(path.stem for path in store.glob("mlp*.sqlite"))


def call(*words: object, code: int = 0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def command_line(*words: object, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run([sys.executable, "-m", "trainvitals", *map(str, words)], capture_output=True, text=True,
                          env=environment, timeout=120, check=False, **options)  # fmt: skip


def names() -> list[str]:
    return [command.name for command in app.registered_commands if command.name]


def test_every_command_of_the_issue_is_there_and_none_that_is_not_built():
    assert sorted(names()) == [
        "analyze", "conditions", "demo", "doctor", "export", "get", "metrics", "migrate", "note", "prune", "runs",
        "sample", "ship", "show", "tag", "ui", "verdict",
    ]  # fmt: skip
    (importing,) = app.registered_groups
    assert importing.typer_instance.info.name == "import"
    assert sorted(c.name for c in importing.typer_instance.registered_commands) == ["mlflow", "tensorboard", "wandb"]


@pytest.mark.parametrize("program", ["mlflow", "tensorboard", "wandb"])
def test_help_of_an_import_shows_an_example(program):
    assert f"  trainvitals import {program} " in call("import", program, "--help").output


@pytest.mark.parametrize("command", names())
def test_help_shows_an_example_that_starts_with_the_command(command):
    assert f"  trainvitals {command}" in call(command, "--help").output


def test_runs_lists_readable_and_unreadable_ones(store, run_id):
    result = call("runs", "--store", store)
    assert run_id in result.output
    assert "finished" in result.output
    assert "broken" in result.output
    assert "unreadable" in result.stderr


def test_runs_as_json(store, run_id):
    found = {run["id"]: run for run in json.loads(call("runs", "--store", store, "--json").stdout)}
    assert found[run_id]["status"] == "finished"
    assert found[run_id]["last_step"] == 29
    assert found["broken"]["problem"]


def test_runs_of_an_empty_folder_is_no_failure(tmp_path):
    assert "No runs" in call("runs", "--store", tmp_path).output
    assert json.loads(call("runs", "--store", tmp_path, "--json").stdout) == []


def test_show_gives_values_errors_missing_reasons_and_own_scalars(store, run_id):
    out = call("show", run_id, "--store", store).output
    for expected in ("finished", "Is it overfitting?", "loss.train", "0.03333", "only one class in the probe batch",
                     "Logged by the training script", "mine", "MLP, 7 parameters"):  # fmt: skip
        assert expected in out


def test_show_as_json(store):
    found = json.loads(call("show", "latest", "--store", store, "--json").stdout)
    assert found["latest"]["loss.train"]["value"] == pytest.approx(1 / 30)
    assert found["latest"]["loss.train"]["error"] == 0.5
    assert found["latest"]["nc1"]["missing"] == "only one class in the probe batch"
    assert found["latest"]["weights"]["value"] == [1.0, -2.0]
    assert found["events"][0]["kind"] == "warning"


def test_get_as_json_is_strict_and_keeps_a_measured_nan(store):
    text = call("get", "mlp", "loss.train", "--store", store, "--json").stdout

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    points = json.loads(text, parse_constant=refuse)["points"]
    assert len(points) == 30
    assert points[3]["value"] == "NaN"
    assert points[4]["value"] == pytest.approx(0.2)


def test_get_as_csv_gives_every_point_and_no_formula(store):
    text = call("get", "mlp", "weights", "--store", store, "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 60
    assert {row["key"] for row in rows} == {"'=cmd()", "\\x1b[2Jfc"}
    assert {float(row["value"]) for row in rows} == {1.0, -2.0}  # a negative number is a number


def test_get_keeps_to_the_steps_that_were_asked_for(store):
    text = call("get", "mlp", "mine", "--store", store, "--csv", "--start", 5, "--stop", 8).stdout
    assert [row["step"] for row in csv.DictReader(io.StringIO(text))] == ["5", "6", "7"]


def test_get_of_a_metric_that_was_never_defined_says_why(store):
    result = call("get", "mlp", "nc1", "--store", store)
    assert "missing at 30 steps, 0 to 29: only one class in the probe batch" in result.stderr


def test_get_for_a_reader_says_how_much_it_leaves_out(store):
    assert "the last 20 of 60 rows" in call("get", "mlp", "weights", "--store", store).output


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["show", "mpl"], "mlp"),
        (["get", "mlp", "loss.trian"], "loss.train"),
        (["get", "mlp", "mine", "--json", "--csv"], "--json or --csv"),
        (["metrics", "hesian.top"], "hessian.top"),
        (["ui", "--host", "0.0.0.0"], "--insecure"),
        (["no-such-command"], "no-such-command"),
        (["demo", "--steps", "0"], "steps"),
    ],
)
def test_wrong_usage_is_code_2_and_says_what_is_near(store, words, near):
    place = [] if words[0] in ("metrics", "no-such-command") else ["--store", store]
    assert near in call(*words, *place, code=2).stderr.replace("\n", " ")


def test_an_unreadable_run_is_failed_work(store):
    result = call("show", "broken", "--store", store, code=1)
    assert "broken is unreadable" in result.stderr
    assert "Traceback" not in result.output


def test_hostile_names_reach_the_terminal_as_text(tmp_path):
    record(tmp_path, name=HOSTILE, num_steps=2)
    for words in (["runs"], ["show", "latest"], ["get", "latest", "weights"], ["get", "latest", "weights", "--csv"],
                  ["runs", "--json"], ["show", "latest", "--json"]):  # fmt: skip
        result = call(*words, "--store", tmp_path)
        assert "\x1b" not in result.output
        assert "\x07" not in result.output
    assert "[red]run[/red]" in call("runs", "--store", tmp_path).output


def test_a_hostile_argument_is_not_obeyed(store):
    for word in (HOSTILE, "[bold]x[/nothing]"):
        result = call("show", word, "--store", store, code=2)
        assert "\x1b" not in result.output


def test_metrics_lists_the_registry():
    from trainvitals.diagnostics.registry import described

    found = json.loads(call("metrics", "--json").stdout)
    assert {words["name"] for words in found} == set(described())
    out = call("metrics").output
    assert all(name in out for name in described())


def test_metrics_of_a_group_and_of_one():
    group = json.loads(call("metrics", "gap", "--json").stdout)
    assert {words["name"] for words in group} == {"gap.loss", "gap.accuracy"}
    out = call("metrics", "hessian.top").output
    assert "formula" in out
    assert "source" in out


def test_the_generated_page_is_up_to_date():
    page = (CHECKOUT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == call("metrics", "--markdown").stdout, "run: trainvitals metrics --markdown > docs/metrics.md"


def test_doctor_is_content_with_a_good_store(tmp_path):
    record(tmp_path)
    checks = {check["subject"]: check for check in json.loads(call("doctor", "--store", tmp_path, "--json").stdout)}
    assert all(check["is_right"] for check in checks.values())
    assert "write-ahead log works" in checks["sqlite"]["found"]
    assert checks["runs"]["found"] == "1 readable, 0 not"
    assert not list(tmp_path.glob(".doctor*"))


def test_doctor_names_what_is_wrong(store, tmp_path):
    assert "WRONG run broken" in call("doctor", "--store", store, code=1).output
    a_file = tmp_path / "file"
    a_file.touch()
    assert "is a file" in call("doctor", "--store", a_file / "runs", code=1).output


def test_doctor_makes_no_folder(tmp_path):
    call("doctor", "--store", tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_doctor_sees_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written" in call("doctor", "--store", tmp_path, code=1).output


def test_exit_codes_of_the_real_program(store, tmp_path):
    assert command_line("runs", "--store", store).returncode == 0
    assert command_line("show", "broken", "--store", store).returncode == 1
    assert command_line("show", "nobody", "--store", store).returncode == 2
    version = command_line("--version")
    assert (version.returncode, version.stderr) == (0, "")


@pytest.mark.parametrize("words", [["runs"], ["show", "latest"], ["get", "latest", "mine"], ["--help"], ["doctor"]])
def test_reading_never_imports_torch(store, words):
    place = [] if words == ["--help"] else ["--store", str(store)]
    code = (
        "import sys\nfrom trainvitals.cli import main\n"
        f"sys.argv = ['trainvitals', *{words + place!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_early_is_no_error(store):
    done = subprocess.run(
        f"{sys.executable} -m trainvitals get mlp weights --csv --store '{store}' | head -n 1",
        shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("step,")
    assert "Traceback" not in done.stderr
