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


# ---- the catalogue beside the files


@pytest.fixture
def no_memory(monkeypatch):
    """What a new process knows: nothing."""

    def forget():
        catalogue._header.cache_clear()
        catalogue._parsed.cache_clear()

    forget()
    return forget


def test_runs_that_ended_are_listed_from_the_catalogue_alone(tmp_path, monkeypatch, no_memory):
    for name in ("a", "b"):
        finished(tmp_path, name)
    expected = list_folder(tmp_path)
    no_memory()
    monkeypatch.setattr(catalogue, "reading", lambda path: pytest.fail("was read"))
    assert list_folder(tmp_path) == expected


@pytest.mark.parametrize("harm", ["missing", "noise", "torn", "stale", "foreign"])
def test_a_catalogue_that_is_wrong_or_gone_changes_no_list(tmp_path, no_memory, harm):
    writers = [finished(tmp_path, name) for name in ("a", "b")]
    expected = list_folder(tmp_path)
    path = tmp_path / catalogue.FILE
    text = path.read_text()
    if harm == "missing":
        path.unlink()
    elif harm == "noise":
        path.write_bytes(os.urandom(500))
    elif harm == "torn":
        path.write_text(text[: len(text) * 3 // 4])
    elif harm == "stale":  # of a file that has changed since
        path.write_text(text.replace('"finished"', '"crashed"'))
        for writer in writers:
            os.utime(writer.path, ns=(1, 1))
    else:
        odd = text.replace('"name": "a"', '"name": 7').replace('"tags": []', '"tags": 1')
        path.write_text('{"file": 3}\n[]\n' + odd)
    no_memory()
    assert list_folder(tmp_path) == expected
    assert catalogue.update(tmp_path) or harm == "stale"
    no_memory()
    assert list_folder(tmp_path) == expected


def test_an_update_adds_killed_runs_not_live_ones_and_drops_what_is_gone(tmp_path, no_memory):
    gone, kept = finished(tmp_path, "gone"), finished(tmp_path, "kept")
    live = RunWriter.create(tmp_path, "live", {}, {})
    os.remove(gone.path)
    assert catalogue.update(tmp_path)
    lines = (tmp_path / catalogue.FILE).read_text().splitlines()
    assert [kept.id in line for line in lines] == [True]
    assert not catalogue.update(tmp_path)
    live.close()


def test_a_list_writes_nothing(tmp_path, no_memory):
    finished(tmp_path, "a")
    (tmp_path / catalogue.FILE).unlink()
    list_folder(tmp_path)
    assert not (tmp_path / catalogue.FILE).exists()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, no_memory, monkeypatch):
    finished(tmp_path, "a")
    (tmp_path / catalogue.FILE).unlink()

    def refuse(*arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(catalogue.os, "open", refuse)
    assert not catalogue.update(tmp_path)
    catalogue.remember(next(tmp_path.glob("*.sqlite")))
    assert len(list_folder(tmp_path)) == 1


def test_tags_are_in_a_list(tmp_path, no_memory):
    with RunWriter.create(tmp_path, "run", {}, {}) as writer:
        writer.header("tags", ["x", "y"])
    for _ in range(2):
        assert list_folder(tmp_path)[0].tags == ("x", "y")
        no_memory()
