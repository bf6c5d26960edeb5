"""The database as a source of the reader; what the reader says of it is compared in test_shipping.py."""

import inspect
import time

import numpy as np
import psycopg
import pytest

from trainvitals.schema import Reading, Record
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_connection import reading
from trainvitals.store.postgres_schema import TABLES
from trainvitals.store.postgres_source import PostgresSource, edit_header, list_database, opening
from trainvitals.store.reader import RunReader
from trainvitals.store.rows import COLUMNS, KEYS
from trainvitals.store.shipping import Shipper
from trainvitals.store.source import Source
from trainvitals.store.writer import RunWriter

HOSTILE = "x'; DROP SCHEMA trainvitals CASCADE; --"


@pytest.fixture
def run(tmp_path, address):
    writer = RunWriter.create(tmp_path, "run", {"seed": 1}, {})
    for step in range(2000):
        readings = {"v": Reading(np.arange(3.0) + step)} if step % 100 == 0 else {}
        writer.append(Record(step, 1.7e9 + step, readings, {"loss": float(step)}))
    writer.close()
    with Shipper(writer.path, address) as shipper:
        shipper.ship()
    return writer


def test_it_answers_all_that_a_reader_may_ask():
    def asked(cls):
        return {n: inspect.signature(f) for n, f in inspect.getmembers(cls, inspect.isfunction) if n[0] != "_"}

    assert {n: s.parameters.keys() for n, s in asked(PostgresSource).items()} == {
        n: s.parameters.keys() for n, s in asked(Source).items()
    }


def test_the_tables_are_those_of_a_run_file():
    assert {t.name: t.names for t in TABLES} == {name: names for name, names in COLUMNS.items() if name != "state"}
    assert all(t.key == KEYS.get(t.name, ("id",)) for t in TABLES)


def test_the_last_readings_are_those_of_the_file(run, address):
    here, there = RunReader(run.path).latest(), RunReader(opening(address, run.id)).latest()
    assert here.keys() == there.keys()
    assert here["loss"] == there["loss"]
    np.testing.assert_array_equal(here["v"][1].value, there["v"][1].value)


def test_the_last_readings_of_many_metrics_are_those_of_the_file_in_few_answers(tmp_path, address, monkeypatch):
    with RunWriter.create(tmp_path, "many", {}, {}) as writer:
        for step in range(12_000):
            scalars = {f"m{i}": float(step * i) for i in range(40) if step % (i + 1) == 0}
            readings = {f"v{i}": Reading(np.arange(3.0) + step + i) for i in range(12)} if step % 4000 == 0 else {}
            writer.append(Record(step, 1.7e9 + step, readings, scalars))
    with Shipper(writer.path, address) as shipper:
        shipper.ship()
    queries = []
    execute = psycopg.Connection.execute
    monkeypatch.setattr(psycopg.Connection, "execute", lambda *a, **k: queries.append(a[1]) or execute(*a, **k))
    here, there = RunReader(writer.path).latest(), RunReader(opening(address, writer.id)).latest()
    assert here.keys() == there.keys()
    assert len(here) == 52
    for name, (step, last) in here.items():
        assert there[name][0] == step
        np.testing.assert_array_equal(there[name][1].value, last.value)
    assert len(queries) < 100


@pytest.mark.parametrize("name", [HOSTILE, "%s", "loss' OR '1'='1", "\\", "名前"])
def test_what_is_asked_for_is_never_a_statement(run, address, name):
    assert len(RunReader(opening(address, run.id)).series(name).points) == 0
    with pytest.raises(StoreError, match="does not have"):
        RunReader(opening(address, name)).header()
    assert len(list_database(address)) == 1


def test_a_reader_cannot_write_by_any_statement(run, address):
    with reading(address) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM trainvitals.runs")
        connection.execute("ROLLBACK")
    assert len(list_database(address)) == 1


def test_a_block_that_changed_is_told_and_the_rest_is_read(run, address):
    with psycopg.connect(address) as db:
        db.execute("UPDATE trainvitals.bodies SET body = set_byte(body, 40, get_byte(body, 40) # 1) WHERE id = 1")
    reader = RunReader(opening(address, run.id))
    assert 0 < len(reader.series("loss").points) < 2000
    assert reader.damage()


def test_words_changed_in_the_database_stay_when_the_run_is_shipped_again(run, address):
    with psycopg.connect(address, autocommit=True) as db:
        edit_header(db, run.id, {"tags": [HOSTILE], "note": HOSTILE})
    with Shipper(run.path, address) as shipper:
        shipper.ship()
    header = RunReader(opening(address, run.id)).header()
    assert (header.tags, header.note) == ((HOSTILE,), HOSTILE)
    assert list_database(address)[0].tags == (HOSTILE,)


def test_a_thousand_runs_are_listed_in_a_fifth_of_a_second(address):
    with psycopg.connect(address, autocommit=True) as db:
        from trainvitals.store.postgres_schema import migrate

        migrate(db, "here")
        db.execute(
            "INSERT INTO trainvitals.runs (id, name, started, status, message, heartbeat_age, received, num_records, "
            "num_points, num_dropped) SELECT 'run-' || n, 'name', n, 'finished', '', 0, now(), 1, 1, 0 "
            "FROM generate_series(1, 1000) n"
        )
        for key in ("id", "name", "started", "meta", "process"):
            value = {"started": "1", "meta": "{}", "process": "{}"}.get(key, '"x"')
            db.execute("INSERT INTO trainvitals.header SELECT run, %s, %s FROM trainvitals.runs", (key, value))
    list_database(address)
    start = time.perf_counter()
    assert len(list_database(address)) == 1000
    assert time.perf_counter() - start < 0.2 * 5  # five times what it should take: the machine is shared
