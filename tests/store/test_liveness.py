import subprocess
import sys
import time

import psutil
import pytest

from trainvitals.schema import Status
from trainvitals.store import liveness


def test_this_process_is_there():
    assert liveness.is_gone(liveness.this_process()) is False


def test_a_process_that_ended_is_gone_even_before_its_parent_looks():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    there = {**liveness.this_process(), "pid": child.pid, "started": psutil.Process(child.pid).create_time()}
    assert liveness.is_gone(there) is False
    child.kill()
    deadline = time.monotonic() + 10
    while not liveness.is_gone(there) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert liveness.is_gone(there) is True  # a zombie: nobody waited for it
    child.wait()
    assert liveness.is_gone(there) is True


def test_a_process_id_that_was_given_away_is_gone():
    assert liveness.is_gone({**liveness.this_process(), "started": time.time() - 1e6}) is True


def test_another_boot_of_this_host_has_no_process_left():
    here = liveness.this_process()
    assert liveness.is_gone({**here, "host": here["host"].partition("/")[0] + "/another-boot"}) is True


@pytest.mark.parametrize("process", [{"host": "elsewhere", "pid": 1, "started": 0.0}, {}, {"host": None}])
def test_another_host_cannot_be_looked_up(process):
    assert liveness.is_gone(process) is None


def test_a_process_of_another_container_cannot_be_looked_up():
    assert liveness.is_gone({**liveness.this_process(), "namespace": "pid:[1]", "started": 0.0}) is None


def test_statuses():
    here, elsewhere = liveness.this_process(), {"host": "elsewhere", "pid": 1, "started": 0.0}
    gone = {**here, "started": 0.0}
    assert liveness.status_of("live", 100.0, here, now=101.0) is Status.LIVE
    assert liveness.status_of("live", 100.0, here, now=131.0) is Status.STALLED
    assert liveness.status_of("live", 100.0, elsewhere, now=101.0) is Status.LIVE
    assert liveness.status_of("live", 100.0, elsewhere, now=131.0) is Status.STALLED
    assert liveness.status_of("live", 100.0, gone, now=100.1) is Status.CRASHED
    assert liveness.status_of("finished", 100.0, gone, now=1e9) is Status.FINISHED
    assert liveness.status_of("crashed", 100.0, here, now=100.0) is Status.CRASHED
