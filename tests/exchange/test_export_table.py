"""A run as a table: every number, in Parquet, CSV and JSON lines, as pandas and DuckDB read them."""

import csv
import json
import stat

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

import trainvitals as tv
from trainvitals.cli import app
from trainvitals.exchange import export_table as module
from trainvitals.exchange.export_table import COLUMNS, csv_cell, export_table
from trainvitals.schema import Description, Reading, Record
from trainvitals.store.errors import StoreError
from trainvitals.store.writer import RunWriter

HOSTILE = '=HYPERLINK("http://x")'


@pytest.fixture
def run(tmp_path):
    words = Description("nc1", "Within-class variability", "What has it learned?", "A ratio.", unit="1")
    writer = RunWriter.create(tmp_path / "runs", "mlp", {"config": {"lr": 0.1}}, {"nc1": words})
    for step in range(200):
        value = {3: np.nan, 4: np.inf, 5: -np.inf, 6: 1 / 3}.get(step, step * 0.1)
        readings = {
            "top": Reading(np.array([step, -0.0]), np.array([0.1, 0.2]), True, keys=("fc", HOSTILE), seconds=0.5),
            "nc1": Reading(0.5, 0.25) if step % 2 else Reading.absent(f"@only one class, {step}"),
        }
        writer.append(Record(step, 1.7e9 + step, readings if step % 10 < 2 else {}, {"loss": value, HOSTILE: 1.0}))
    writer.close()
    return tv.open_run(writer.path)


def check(table: pd.DataFrame, run, hostile: str = HOSTILE) -> None:
    """The table has every number of the run, bit for bit."""
    assert list(table.columns) == list(COLUMNS)
    assert set(table["run"]) == {run.id}
    assert list(dict.fromkeys(table["metric"])) == [hostile if n == HOSTILE else n for n in run.names()]
    for name in ("loss", "top", "nc1"):
        ours = table[(table["metric"] == name) & table["missing"].isna()].reset_index(drop=True)
        theirs = run.series(name)
        for column in ("step", "time", "value", "error", "seconds"):
            np.testing.assert_array_equal(ours[column].to_numpy(float), theirs[column].to_numpy(float))
    missing = table[table["metric"].eq("nc1") & table["missing"].notna()]
    assert missing["step"].tolist() == run.missing("nc1")["step"].tolist()
    assert missing["value"].isna().all()


@pytest.fixture(params=[500_000, 37], ids=["at once", "in parts"])
def part_size(request, monkeypatch):
    monkeypatch.setattr(module, "POINTS_PER_PART", request.param)


@pytest.mark.usefixtures("part_size")
def test_parquet_as_pandas_reads_it(tmp_path, run):
    file = tmp_path / "out.parquet"
    assert export_table(run, file) == len(pd.read_parquet(file))
    check(pd.read_parquet(file), run)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    schema = parquet.read_schema(file)
    assert {f.name: f.metadata[b"description"].decode() for f in schema} == COLUMNS
    assert json.loads(schema.metadata[b"trainvitals.meta"])["config"] == {"lr": 0.1}
    assert json.loads(schema.metadata[b"trainvitals.descriptions"])["nc1"]["title"] == "Within-class variability"


def test_parquet_as_duckdb_reads_it_with_nan_apart_from_null(tmp_path, run):
    duckdb = pytest.importorskip("duckdb")
    file = tmp_path / "out.parquet"
    export_table(run, file)
    query = "SELECT step, value FROM '{}' WHERE metric = ? AND {}".format(file, "{}")
    with duckdb.connect() as db:
        assert db.execute(query.format("isnan(value)"), ["loss"]).fetchall()[0][0] == 3
        assert len(db.execute(query.format("isnan(value)"), ["nc1"]).fetchall()) == 0
        assert len(db.execute(query.format("value IS NULL"), ["nc1"]).fetchall()) == 20
        assert db.execute(query.format("step = 6"), ["loss"]).fetchone() == (6, 1 / 3)
        assert db.execute(f"SELECT count(*) FROM '{file}' WHERE key = ?", [HOSTILE]).fetchone() == (40,)


@pytest.mark.usefixtures("part_size")
def test_csv_whose_cells_start_no_formula(tmp_path, run):
    file = tmp_path / "out.csv"
    export_table(run, file)
    check(pd.read_csv(file, keep_default_na=False, na_values={c: ["", "nan"] for c in ("value", "error", "missing")}),
          run, f"'{HOSTILE}")  # fmt: skip
    with open(file, newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    numbers = [cell for cell in cells if cell[:1] == "-"]
    assert all(float(cell) <= 0 for cell in numbers)  # a minus stands before numbers only
    assert not [cell for cell in cells if cell[:1] in tuple("=+@")]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "＝1", "\t=1", "\r=1", "\x00=1", "\u202e=1"])
def test_no_text_starts_a_formula(text):
    assert csv_cell(text)[0] in "'\\"


@pytest.mark.usefixtures("part_size")
def test_json_lines_are_strict(tmp_path, run):
    file = tmp_path / "out.jsonl"
    export_table(run, file)

    def refuse(name):
        raise AssertionError(name)

    rows = [json.loads(line, parse_constant=refuse) for line in file.read_text().splitlines()]
    values = {row["step"]: row["value"] for row in rows if row["metric"] == "loss"}
    assert (values[3], values[4], values[5], values[6]) == ("NaN", "Infinity", "-Infinity", 1 / 3)
    assert {row["value"] for row in rows if row["missing"]} == {None}
    check(pd.DataFrame(rows).astype({"value": float}), run)


def test_a_file_that_is_there_stays_and_one_that_fails_is_not_left(tmp_path, run, monkeypatch):
    file = tmp_path / "out.csv"
    file.write_text("mine")
    with pytest.raises(StoreError, match="not there yet"):
        export_table(run, file)
    assert file.read_text() == "mine"
    monkeypatch.setattr(module, "parts_of", lambda run: iter(lambda: 1 / 0, 1))
    with pytest.raises(ZeroDivisionError):
        export_table(run, file, overwrite=True)
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "runs"]


def test_the_command_knows_the_kind_by_the_ending(tmp_path, run):
    def call(to, code=0, *more):
        result = CliRunner().invoke(app, ["export", run.id, "--to", str(to), "--store", str(tmp_path / "runs"), *more])
        assert result.exit_code == code, result.output

    call(tmp_path / "a.parquet")
    call(tmp_path / "a.parquet", 1)
    call(tmp_path / "a.parquet", 0, "--overwrite")
    call(tmp_path / "a.xlsx", 2)
    call(tmp_path / "archive")
    assert len(pd.read_parquet(tmp_path / "a.parquet"))


def test_the_documented_columns_are_those_there_are():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    for name, words in COLUMNS.items():
        assert f"| `{name}` | " in text
        assert words in text
