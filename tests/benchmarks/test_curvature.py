"""The benchmark's scripts run: what they measure is for a quiet machine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("question", ["top", "tracked", "density", "trace", "memory", "scaling"])
def test_curvature_answers_each_question_in_quick_mode(question):
    done = subprocess.run(
        [sys.executable, "benchmarks/curvature.py", question, "--quick", "--no-save"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("| TrainVitals") + done.stdout.count("| MLP") >= 3  # a table with lines in it
    assert "nan" not in done.stdout
