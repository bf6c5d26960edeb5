import os
import shutil
import sqlite3

import pytest

from trainvitals.schema import Record, Status
from trainvitals.store import catalogue
from trainvitals.store.catalogue import list_folder
from trainvitals.store.writer import RunWriter


def finished(folder, name):
    writer = RunWriter.create(folder, name, {}, {})
    writer.append(Record(3, 0.0, scalars={"loss": 1.0}))
    writer.close()
    return writer


def test_a_folder_that_is_not_there_or_is_a_file_has_no_runs(tmp_path):
    (tmp_path / "file").write_text("")
    assert list_folder(tmp_path / "none") == []
    assert list_folder(tmp_path / "file") == []


def test_runs_come_newest_first_with_what_a_list_shows(tmp_path):
    first = finished(tmp_path, "first")
    second = RunWriter.create(tmp_path, "second", {}, {})
    runs = list_folder(tmp_path)
    assert [run.id for run in runs] == [second.id, first.id]
    assert [run.status for run in runs] == [Status.LIVE, Status.FINISHED]
    assert (runs[1].name, runs[1].last_step, runs[1].num_points) == ("first", 3, 1)
    assert runs[1].path == str(first.path)
    assert runs[1].started <= runs[1].updated
    second.close()


def test_the_list_of_a_live_run_is_as_new_as_the_file(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {})
    for step in range(5):
        writer.append(Record(step, 0.0, scalars={"loss": 1.0}))
        assert writer.flush(10)
        (run,) = list_folder(tmp_path)
        assert (run.last_step, run.num_points) == (step, step + 1)
    writer.close(Status.CRASHED)
    (run,) = list_folder(tmp_path)
    assert run.status is Status.CRASHED


def test_a_finished_run_is_read_once(tmp_path, monkeypatch):
    finished(tmp_path, "run")
    before = list_folder(tmp_path)
    monkeypatch.setattr(catalogue, "reading", lambda path: pytest.fail("was read again"))
    assert list_folder(tmp_path) == before


def test_files_that_cannot_be_read_are_listed_with_their_reason_and_the_others_open(tmp_path):
    good = finished(tmp_path, "good")
    (tmp_path / "empty.sqlite").write_bytes(b"")
    (tmp_path / "noise.sqlite").write_bytes(os.urandom(5000))
    (tmp_path / "folder.sqlite").mkdir()
    (tmp_path / "notes.txt").write_text("not considered")
    (tmp_path / ".hidden.sqlite").write_text("not considered")
    connection = sqlite3.connect(tmp_path / "foreign.sqlite")
    connection.execute("CREATE TABLE runs (id)")
    connection.close()
    torn = shutil.copy(good.path, tmp_path / "torn.sqlite")
    os.truncate(torn, 5000)
    (tmp_path / "dangling.sqlite").symlink_to(tmp_path / "gone")
    runs = list_folder(tmp_path)
    assert runs[0].id == good.id
    assert runs[0].problem is None
    problems = {run.id: run.problem or "" for run in runs[1:]}
    assert "empty" in problems["empty"]
    assert "not a database" in problems["noise"]
    assert "not a file" in problems["folder"]
    assert "another program" in problems["foreign"]
    assert problems["torn"]
    assert "No such file" in problems["dangling"]
    assert len(problems) == 6
    assert all(run.status is None for run in runs[1:])


def test_a_run_file_whose_tables_were_emptied_is_listed_as_damaged(tmp_path):
    writer = finished(tmp_path, "run")
    connection = sqlite3.connect(writer.path)
    connection.execute("DELETE FROM header")
    connection.commit()
    connection.close()
    (run,) = list_folder(tmp_path)
    assert "damaged" in run.problem
