"""All runs as one table, in a folder; a database's is in store/test_shipped_writer.py."""

import math

import numpy as np
import pandas as pd

import trainvitals as tv
from trainvitals.run_table import FACTS
from trainvitals.schema import Reading, Record
from trainvitals.store.writer import RunWriter


def write(folder, name: str, config: dict, **last) -> str:
    writer = RunWriter.create(folder, name, {"config": config}, {})
    writer.append(Record(0, 0.0, {}, dict.fromkeys(last, -1.0)))
    readings = {"undefined": Reading.absent("why"), "vector": Reading(np.ones(3))}
    writer.append(Record(1, 1.0, readings, last))
    writer.header("tags", [name])
    writer.header("note", f"about {name}")
    writer.close()
    return writer.id


def test_settings_tags_and_last_values_stand_side_by_side(tmp_path):
    ids = {
        write(tmp_path, "one", {"lr": 0.1, "model": {"width": 3, "empty": {}}}, loss=0.5, acc=0.9): "one",
        write(tmp_path, "two", {"lr": 0.2, "layers": [1, 2]}, loss=math.inf): "two",
    }
    (tmp_path / "broken.sqlite").write_bytes(b"nothing of ours" * 100)
    table = tv.runs(tmp_path)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns[: len(FACTS)]) == FACTS
    assert set(table.columns[len(FACTS) :]) == {
        "config.lr", "config.layers", "config.model.width", "config.model.empty", "acc", "loss", "undefined",
    }  # fmt: skip
    rows = {ids.get(row["id"], "broken"): row for _, row in table.iterrows()}
    assert rows["one"]["config.lr"] == 0.1
    assert rows["one"]["config.model.width"] == 3
    assert rows["two"]["config.layers"] == [1, 2]
    assert (rows["one"]["loss"], rows["one"]["acc"], rows["two"]["loss"]) == (0.5, 0.9, math.inf)
    assert np.isnan(rows["two"]["acc"])
    assert np.isnan(rows["one"]["undefined"])
    assert rows["one"]["tags"] == ("one",)
    assert rows["two"]["note"] == "about two"
    assert rows["one"]["status"] == "finished"
    assert "broken.sqlite" in rows["broken"]["problem"]


def test_without_values_no_metric_is_read(tmp_path):
    write(tmp_path, "one", {"lr": 0.1}, loss=0.5)
    assert list(tv.runs(tmp_path, values=False).columns) == [*FACTS, "config.lr"]


def test_an_empty_store_is_an_empty_table_with_its_columns(tmp_path):
    assert list(tv.runs(tmp_path).columns) == FACTS
    assert len(tv.runs(tmp_path / "none")) == 0
