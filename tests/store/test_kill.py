"""`kill -9` under load: no acknowledged point is lost, the run is crashed, readers never raise."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from trainvitals.schema import Status
from trainvitals.store.catalogue import list_folder
from trainvitals.store.reader import RunReader

ROOT = Path(__file__).parents[2]
TRAINER = """
    import sys, time
    import numpy as np
    from trainvitals.schema import Reading, Record
    from trainvitals.store.writer import RunWriter
    writer = RunWriter.create(sys.argv[1], "killed", {}, {}, flush_seconds=0.01)
    print(writer.path, flush=True)
    step = 0
    while True:
        for _ in range(300):
            step += 1
            readings = {"layers": Reading(np.full(40, step), np.ones(40))} if step % 10 == 0 else {}
            writer.append(Record(step, time.time(), readings, {f"s{i}": step + i for i in range(10)}))
        if writer.flush(60):
            print(step, flush=True)
"""


def kill_once(folder, seconds):
    """Let a trainer write for so long, kill it, and check what it left."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(TRAINER), str(folder)],
                             env=environment, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout is not None
    path = Path(child.stdout.readline().strip())
    failures, stop = [], threading.Event()

    def poll():
        while not stop.is_set():
            try:
                reader = RunReader(path)
                steps = reader.series("s3").points.step
                np.testing.assert_array_equal(steps, np.arange(1, len(steps) + 1))
                reader.latest()
                few = reader.series("s3", max_points=20).points
                assert len(few) <= 20
                assert (few.value == few.step + 3).all()
                assert list_folder(folder)[0].problem is None
            except Exception as error:
                failures.append(error)
            time.sleep(0.05)  # 20 Hz

    poller = threading.Thread(target=poll)
    poller.start()
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    told = child.stdout.read().split()
    child.stdout.close()
    child.wait()
    time.sleep(0.05)
    stop.set()
    poller.join()
    assert failures == []
    return path, int(told[-1]) if told else 0


def check(path, acknowledged):
    reader = RunReader(path)
    for i in (0, 9):
        points = reader.series(f"s{i}").points
        assert len(points) >= acknowledged
        np.testing.assert_array_equal(points.step, np.arange(1, len(points) + 1))
        np.testing.assert_array_equal(points.value, points.step + i)
    vectors = reader.series("layers").vectors
    assert [v.step for v in vectors] == list(range(10, 10 * len(vectors) + 1, 10))
    assert len(vectors) >= acknowledged // 10
    assert all((v.arrays["value"] == v.step).all() for v in vectors[:: max(1, len(vectors) // 20)])
    assert reader.header().status is Status.CRASHED


def kill_many(folder, num_kills):
    times = random.Random(0)
    acknowledged = []
    for i in range(num_kills):
        path, steps = kill_once(folder / str(i), times.uniform(0.05, 1.0))
        check(path, steps)
        shutil.rmtree(folder / str(i))
        acknowledged.append(steps)
    assert max(acknowledged) > 1024  # some lived to see a compaction


def test_three_kills_lose_no_acknowledged_point(tmp_path):
    kill_many(tmp_path, 3)


@pytest.mark.slow
def test_fifty_kills_lose_no_acknowledged_point(tmp_path):
    kill_many(tmp_path, 50)
