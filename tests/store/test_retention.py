import os

import pytest

from trainvitals.schema import Record, RunSummary, Status
from trainvitals.store.catalogue import list_folder
from trainvitals.store.errors import StoreError
from trainvitals.store.retention import Rules, bytes_of, condemned, delete, seconds_of
from trainvitals.store.writer import RunWriter

DAY = 86_400.0
NOW = 1000 * DAY


@pytest.fixture
def runs(tmp_path):
    """Five runs that ended 0 to 4 days ago, 100 bytes each, and four that may not go."""

    def make(name, days, status=Status.FINISHED, tags=(), problem=None):
        (tmp_path / name).write_bytes(b"x" * 100)
        at = NOW - days * DAY
        return RunSummary(name, name, str(tmp_path / name), status, at, at, 1, 1, problem=problem, tags=tags)

    tags = [(), ("x",), ("x", "y"), (), ("keep",)]
    ended = [make(f"r{i}", i, Status.CRASHED if i == 2 else Status.FINISHED, tags[i]) for i in range(5)]
    return [*ended, make("live", 900, Status.LIVE), make("stalled", 900, Status.STALLED),
            make("broken", 900, None, problem="damaged"), make("old-live", 999, Status.LIVE, ("x",))]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        (Rules(older_than_seconds=2.5 * DAY), {"r3", "r4"}),
        (Rules(older_than_seconds=2.5 * DAY, keep_tags=frozenset({"keep"})), {"r3"}),
        (Rules(keep_last=2), {"r2", "r3", "r4"}),
        (Rules(keep_last=0), {"r0", "r1", "r2", "r3", "r4"}),
        (Rules(max_bytes=250), {"r2", "r3", "r4"}),
        (Rules(tags=frozenset({"x"})), {"r1", "r2"}),
        (Rules(tags=frozenset({"y", "keep"})), {"r2", "r4"}),
        (Rules(tags=frozenset({"x"}), keep_last=1), {"r2"}),
        (Rules(older_than_seconds=3.5 * DAY, keep_last=4), {"r4"}),
        (Rules(), set()),
    ],
)
def test_rules_name_the_runs_that_may_go_and_never_a_live_one(runs, rules, names):
    assert {one.run.id for one in condemned(runs, rules, NOW)} == names


def finished(folder, name):
    with RunWriter.create(folder, name, {}, {}) as writer:
        writer.append(Record(1, 0.0, scalars={"a": 1.0}))
    return writer.path


def test_a_deleted_run_is_gone_with_its_log(tmp_path):
    path = finished(tmp_path, "gone")
    (tmp_path / f"{path.name}-wal").touch()
    (run,) = list_folder(tmp_path)
    assert delete(run)
    assert not list(tmp_path.glob("*.sqlite*"))
    assert not delete(run)


def test_a_run_that_goes_on_meanwhile_is_kept(tmp_path):
    path = finished(tmp_path, "again")
    (run,) = list_folder(tmp_path)
    with RunWriter.resume(path, {}):
        assert not delete(run)
    assert path.exists()


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "3y", "1e3d"])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(StoreError, match="expected a time such as"):
        seconds_of(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "3 bits", "1XB"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(StoreError, match="expected a size such as"):
        bytes_of(text)


def test_the_size_of_a_run_is_that_of_its_files(tmp_path):
    path = finished(tmp_path, "run")
    (run,) = list_folder(tmp_path)
    (one,) = condemned([run], Rules(keep_last=0), NOW)
    assert one.num_bytes == os.stat(path).st_size
