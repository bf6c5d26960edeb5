"""The example of docs/distributed.md under torchrun, with copies and with parts of the weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainvitals as tv

EXAMPLE = Path(__file__).parents[2] / "docs" / "distributed_example.py"


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--fsdp"]], ids=["ddp", "fsdp"])
def test_the_example_runs_under_torchrun_and_its_run_opens(tmp_path, options):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*torchrun, str(EXAMPLE), "--store", str(tmp_path), *options],
        capture_output=True, text=True, timeout=280, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = tv.list_runs(tmp_path)
    run = tv.open_run(found.id, store=tmp_path)
    assert run.status == "finished"
    assert run.meta["num_ranks"] == 2
    assert run.meta["train_probe"]["num_samples"] == 256
    assert run.meta["heldout_probe"]["num_samples"] == 256
    assert run.series("loss.train")["step"].tolist() == [0, 10, 20, 30, 40]
    assert len(run.series("train_loss")) == 40
    assert run.series("hessian.top")["value"].notna().all()
