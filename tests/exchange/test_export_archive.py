"""A run as a folder that opens elsewhere."""

import hashlib
import json
import os
import shutil

import pytest

import trainvitals as tv
from trainvitals.exchange.export_archive import export_archive
from trainvitals.schema import Record, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.writer import RunWriter


def write(folder) -> RunWriter:
    writer = RunWriter.create(folder, "mlp", {"seed": 1}, {})
    for step in range(3000):
        writer.append(Record(step, 1.7e9 + step, {}, {"loss": step * 0.5}))
    writer.header("tags", ["a"])
    assert writer.flush(60)
    return writer


@pytest.mark.parametrize("is_live", [False, True])
def test_an_archive_opens_elsewhere_and_has_everything(tmp_path, is_live):
    writer = write(tmp_path / "runs")
    if not is_live:
        writer.close()
    with tv.open_run(writer.path) as run:
        export_archive(run, tmp_path / "out")
        before = run.series("loss")
    writer.close()
    shutil.rmtree(tmp_path / "runs")
    moved = shutil.move(tmp_path / "out", tmp_path / "else where")
    os.chmod(moved, 0o500)
    with tv.open_run(moved) as run, tv.open_run("latest", store=moved) as same:
        assert run.series("loss").equals(before)
        assert (run.id, run.tags, run.meta) == (writer.id, ("a",), {"seed": 1})
        assert same.id == run.id
        assert run.damage() == []
        assert is_live or run.status is Status.FINISHED
    os.chmod(moved, 0o700)
    assert not [path for path in moved.iterdir() if path.name.endswith(("-wal", "-shm"))]


def test_the_manifest_has_the_checksums(tmp_path):
    writer = write(tmp_path / "runs")
    writer.close()
    with tv.open_run(writer.path) as run:
        folder = export_archive(run, tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == "trainvitals-archive"
    for name, facts in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"]
    assert f"{writer.id}.sqlite" in manifest["files"]
    assert all((path.stat().st_mode & 0o077) == 0 for path in folder.glob("*.sqlite"))


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    writer = write(tmp_path / "runs")
    writer.close()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with tv.open_run(writer.path) as run, pytest.raises(StoreError, match="empty folder"):
        export_archive(run, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]
