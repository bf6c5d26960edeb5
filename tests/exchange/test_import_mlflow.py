"""MLflow's SQLite store: its own tables and two runs that MLflow 3.17.2 recorded, as SQL."""

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import trainvitals as tv
from trainvitals.exchange.import_mlflow import find_mlflow
from trainvitals.exchange.recording import record
from trainvitals.schema import Status
from trainvitals.store.errors import StoreError


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript((Path(__file__).parent / "mlflow.sql").read_text())
    return path


def change(database, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute(statement)
        db.commit()


def test_runs_come_with_their_numbers_steps_times_and_words(tmp_path, database):
    done = [record(found, tmp_path / "runs") for found in find_mlflow(database)]
    assert [one.num_points for one in done] == [20, 1]
    with tv.open_run("exp/first", store=tmp_path / "runs") as run:
        loss = run.series("loss")
        expected = [1 / (i + 1) for i in range(10)]
        expected[3] = np.nan
        np.testing.assert_array_equal(loss["value"], expected)
        assert loss["step"].tolist() == list(range(10))
        assert loss["time"].is_monotonic_increasing
        assert run.series("inf")["value"].tolist() == [np.inf] * 10
        assert run.tags == ("team=x",)
        assert run.status is Status.FINISHED
        assert run.meta["config"]["lr"] == "0.1"
        assert run.meta["config"]["api_key"] == "***"
        assert run.started < loss["time"].iloc[0]


def test_deleted_runs_stay_deleted_and_failed_ones_are_crashed(tmp_path, database):
    change(database, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'first'")
    change(database, "UPDATE runs SET status = 'FAILED' WHERE name = 'second'")
    (found,) = find_mlflow(database)
    assert found.name == "exp/second"
    assert tv.open_run(record(found, tmp_path).path).status is Status.CRASHED


def test_the_database_is_only_read(database):
    before = database.read_bytes()
    for found in find_mlflow(database):
        list(found.records)
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == ["mlflow.db"]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(StoreError, match="expected a file"):
        find_mlflow(tmp_path / "none.db")
    (tmp_path / "other.db").write_bytes(b"something else" * 1000)
    with pytest.raises(StoreError, match="that is none"):
        find_mlflow(tmp_path / "other.db")
