import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainvitals.schema import Status
from trainvitals.store.migrations import migrate
from trainvitals.store.rows import CLEAR, COLUMNS, Rows, checksum_of, is_intact, make_change
from trainvitals.store.schema_sql import CHECKED_COLUMNS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGER = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture
def rows():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, "run")
    yield Rows(connection)
    connection.close()


def read(rows, table):
    return rows.connection.execute(f"SELECT {', '.join(COLUMNS[table])}, crc FROM {table}").fetchall()


@given(TEXT, TEXT, INTEGER, st.floats(allow_nan=False))
def test_whatever_a_row_holds_it_is_intact_when_it_comes_back(kind, message, step, time):
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, "run")
    rows = Rows(connection)
    rows.put("events", (1, step, time, kind, message))
    ((*row, crc),) = read(rows, "events")
    connection.close()
    assert is_intact("events", row, crc)
    assert row == [1, step, time, kind, message]


def test_an_enumerated_status_counts_as_its_text(rows):
    rows.put("state", (1, Status.LIVE, "", 1.5, None, 0, 0, 0, "lease"))
    ((*row, crc),) = read(rows, "state")
    assert is_intact("state", row, crc)


@pytest.mark.parametrize("table", list(CHECKED_COLUMNS))
def test_a_change_of_any_checked_column_is_noticed(table):
    row = list(range(len(COLUMNS[table])))
    crc = checksum_of(table, row)
    assert is_intact(table, row, crc)
    for column in CHECKED_COLUMNS[table]:
        damaged = list(row)
        damaged[COLUMNS[table].index(column)] = 99
        assert not is_intact(table, damaged, crc)


def test_ids_go_on_after_those_in_the_file_and_are_given_again_after_a_roll_back(rows):
    rows.put("texts", (7, "a"))
    rows.begin()
    assert [rows.next_id("texts"), rows.next_id("texts")] == [8, 9]
    rows.put("texts", (8, "b"))
    rows.roll_back()
    assert rows.next_id("texts") == 8


def test_to_put_a_row_twice_is_to_put_it_once(rows):
    for _ in range(2):
        rows.put("series", (1, "loss", 0))
        rows.put("chunks", (1, 0, 0, 9, 0, 9, 1, b"x"))
    assert len(read(rows, "series")) == 1
    assert rows.connection.execute("SELECT count(*) FROM chunks").fetchone() == (1,)


def test_a_table_that_is_none_of_ours_is_never_touched(rows):
    rows.connection.execute("CREATE TABLE other (x)")
    with pytest.raises(KeyError):
        make_change(rows.connection, CLEAR, "other", ())
