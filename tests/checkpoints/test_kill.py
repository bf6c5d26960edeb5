"""An analysis that is killed half-way goes on where it stopped, and does nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import live_training as live

import trainvitals as tv

NUM = 10
WHAT = ["loss.train", "overtraining", "cka", "growth_law", "hessian.tracked", "weights.norm"]
SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import trainvitals as tv
from checkpoints import live_training as live

def build():
    return live.build_double()

def slow_loss(outputs, targets):
    time.sleep({seconds})
    return live.loss(outputs, targets)

if __name__ == "__main__":
    tv.analyze({folder!r}, build=build, loss=slow_loss, **live.probes(), what={what!r}, store={store!r}, workers=2)
"""


@pytest.mark.slow
def test_a_killed_analysis_goes_on_and_redoes_nothing(tmp_path):
    seen = live.train(tmp_path, WHAT, NUM)
    store = tmp_path / "runs"

    def started(seconds: float) -> subprocess.Popen:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(tests=str(Path(__file__).parent.parent), seconds=seconds, what=WHAT,
                                        folder=str(seen.folder), store=str(store)))  # fmt: skip
        return subprocess.Popen([sys.executable, "-W", "ignore", script], env={**os.environ, "OMP_NUM_THREADS": "1"})

    with started(0.05) as process:
        try:
            while _num_steps(store, "growth_law.r2_log") < 3 or _num_steps(store, "loss.train") < 3:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.05)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    run = tv.open_run("checkpoints", store)
    assert run.status == "crashed"
    before = {name: run.series(name) for name in run.names()}
    assert 3 <= len(before["loss.train"]) < NUM
    with started(0.0) as process:
        assert process.wait() == 0
    after = tv.open_run("checkpoints", store)
    assert (after.id, after.status) == (run.id, "finished")
    assert live.assert_same_numbers(tv.open_run(seen.run), after, 1e-6) > 100
    for name, points in before.items():
        now = after.series(name)
        now = now[now["step"].isin(points["step"])]
        assert now["time"].tolist() == points["time"].tolist(), name
    assert [file.suffix for file in store.iterdir() if file.suffix == ".memory"] == []


def _num_steps(store: Path, metric: str) -> int:
    """Return at how many steps a metric was measured so far; what is done is seen while the analysis runs."""
    if not store.is_dir() or not tv.list_runs(store):
        return 0
    run = tv.open_run("checkpoints", store)
    if metric not in run.names():
        return 0
    return len({*run.series(metric)["step"], *run.missing(metric)["step"]})
