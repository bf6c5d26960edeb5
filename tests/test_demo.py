"""The demo: its data, its command in both forms, and that it does overfit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from servers import heeding_ctrl_c, unused_port

import trainvitals as tv
from trainvitals.demo import Recipe, batches, digits, small_cnn, train

CHECKOUT = Path(__file__).parent.parent


def test_the_share_of_wrong_labels_is_exact_and_the_held_out_ones_are_right():
    noisy, clean = digits(600, 0.4, seed=0), digits(600, 0.0, seed=0)
    changed = noisy.train[1] != clean.train[1]
    assert torch.equal(changed, noisy.is_wrong)
    assert int(changed.sum()) == 240
    assert torch.equal(noisy.heldout[1], clean.heldout[1])
    assert noisy.train[0].shape == (600, 1, 8, 8)
    assert float(noisy.train[0].max()) == 1.0


@pytest.mark.parametrize(("num_train", "wrong_share"), [(0, 0.1), (1797, 0.1), (600, -0.1), (600, 1.1)])
def test_digits_refuses_what_cannot_be(num_train, wrong_share):
    with pytest.raises(ValueError, match="in digits"):
        digits(num_train, wrong_share, seed=0)


def test_batches_are_whole_and_cover_an_epoch():
    recipe = Recipe(batch_size=25, num_steps=8)
    x = torch.arange(100.0)
    found = list(batches(x, x.long(), recipe))
    assert [len(rows) for rows, _ in found] == [25] * 8
    assert sorted(torch.cat([rows for rows, _ in found[:4]]).tolist()) == x.tolist()


def test_the_model_takes_digits():
    assert small_cnn((2, 3, 4))(torch.zeros(5, 1, 8, 8)).shape == (5, 10)


def test_train_records_every_named_diagnostic(tmp_path):
    steps = []
    recipe = Recipe(num_train=120, num_probe=120, num_steps=3)
    run_id = train(recipe, tmp_path, lambda step, loss: steps.append(step))
    assert steps == [1, 2, 3]
    with tv.open_run(run_id, tmp_path) as run:
        assert run.status == "finished"
        latest = run.latest()
        for name in ("hessian.top", "hessian.bottom", "hessian.trace", "hessian.density", "stability.ratio", "oui",
                     "oui.v2", "weights.norm.growth", "grad.cosine", "grad.coherence", "nc1", "nc3", "gap.loss",
                     "overtraining", "accuracy.heldout"):  # fmt: skip
            assert latest[name][1].value is not None, latest[name][1].missing


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_headless_prints_the_run_and_the_summary_and_overfits(tmp_path):
    done = subprocess.run([sys.executable, "-m", "trainvitals", "demo", "--headless", "--store", str(tmp_path)],
                          capture_output=True, text=True, env=environment(), check=True, timeout=380)  # fmt: skip
    assert done.stderr == ""
    run_id = re.search(r"run (digits-cnn-\S+) \(finished\)", done.stdout).group(1)
    for name in ("hessian.top", "oui", "weights.norm.growth", "grad.cosine", "nc1", "overtraining"):
        assert re.search(rf"^  {re.escape(name)} ", done.stdout, re.MULTILINE)
    with tv.open_run(run_id, tmp_path) as run:
        loss, accuracy = run.series("loss.heldout")["value"], run.series("accuracy.heldout")["value"]
        assert run.series("loss.train")["value"].iloc[-1] < 0.05
        assert loss.iloc[-1] > 1.5 * loss.min()
        assert 0 < loss.idxmin() < len(loss) / 2
        assert accuracy.max() > 0.8 > 0.7 > accuracy.iloc[-1]


@pytest.mark.slow
def test_the_dashboard_is_up_while_it_trains_and_ctrl_c_ends_both(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "trainvitals", "demo", "--store", str(tmp_path), "--port", unused_port()],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
        preexec_fn=heeding_ctrl_c,
    )  # fmt: skip
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline()).group()
        while "step" not in process.stdout.readline():
            pass
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 0, rest
    assert "Stopped before the end" in rest
    assert "Traceback" not in rest
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=2)
    time.sleep(0.1)
    (run,) = tv.list_runs(tmp_path)
    assert run.status == "finished"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
