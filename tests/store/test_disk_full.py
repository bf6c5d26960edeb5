"""A disk that is full at random points: one warning, no wrong number, and all that fits in memory once there is room.

The disk is a tmpfs of two megabytes where mounting is allowed (root on Linux); elsewhere the size of
every file is limited, which the system reports as another error at the same calls.
"""

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from trainvitals.store.reader import RunReader

ROOT = Path(__file__).parents[2]
DISK_BYTES = 2 * 2**20

TRAINER = """
    import contextlib, os, resource, sys, warnings
    from pathlib import Path
    import numpy as np
    from trainvitals.schema import Reading, Record
    from trainvitals.store import opening
    from trainvitals.store.reader import RunReader
    from trainvitals.store.writer import RunWriter

    folder, how, start, is_network = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "log"
    if is_network:
        opening.network_type = lambda folder: "nfs4"
    rng = np.random.default_rng(start)
    filler = folder / "filler"
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def fill(num_bytes):  # the disk is full but for so many bytes
        if how == "tmpfs":
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            with contextlib.suppress(OSError):  # the writer was quicker: it is full all the same
                filler.write_bytes(bytes(max(0, free - num_bytes)))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000 + num_bytes, hard))

    def free():
        if how == "tmpfs":
            filler.unlink(missing_ok=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        writer = RunWriter.create(folder, "full", {}, {}, flush_seconds=0.005)
        step, was_refused = 0, 0
        for part in range(6):
            fill(int(rng.integers(0, 12_000)))
            for _ in range(60):
                step += 1
                readings = {"v": Reading(rng.normal(size=50))} if step % 10 == 0 else {}
                writer.append(Record(step, float(step), readings, {f"s{i}": step + i for i in range(20)}))
                if step % 20 == 0:
                    was_refused += not writer.flush(0.2)
            free()
            assert writer.flush(60)
            points = RunReader(writer.path).series("s7").points
            assert points.step.tolist() == list(range(1, step + 1)), "a point was lost"
        writer.close()
    print(writer.path, step, was_refused, len(caught), writer.num_dropped)
"""


@contextlib.contextmanager
def small_disk(folder):
    """Mount a small disk on the folder, or say how else it is limited."""
    mounted = sys.platform == "linux" and os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    try:
        yield "tmpfs" if mounted else "limit"
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
@pytest.mark.parametrize("kind", ["file", "log"])
@pytest.mark.parametrize("start", range(3))
def test_a_disk_full_at_random_points_loses_nothing_that_fits_in_memory(tmp_path, kind, start):
    with small_disk(tmp_path) as how:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(TRAINER), str(tmp_path), how, str(start), kind],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        path, last_step, was_refused, num_warnings, num_dropped = done.stdout.split()
        if how == "tmpfs":
            assert int(was_refused) > 0  # else the disk was never full
        assert int(num_warnings) <= 1
        assert num_dropped == "0"
        reader = RunReader(path)
        for name in ("s0", "s19"):
            points = reader.series(name).points
            np.testing.assert_array_equal(points.step, np.arange(1, int(last_step) + 1))
            np.testing.assert_array_equal(points.value, points.step + int(name[1:]))
        assert len(reader.series("v").vectors) == int(last_step) // 10
        assert reader.damage() == []

