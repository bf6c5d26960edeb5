"""The benchmark of analyses runs, in this process and small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import trainvitals as tv

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "analyze.py"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_analyze", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_checkpoints_can_be_analysed_and_differences_are_seen(benchmark, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    benchmark.save_checkpoints(tmp_path / "checkpoints", 3)
    one, other = (
        tv.analyze(tmp_path / "checkpoints", build=benchmark.build, batch=benchmark.probe(seed), loss=benchmark.loss,
                   what=["loss.train", "cka"], store=tmp_path / str(seed), workers=1) for seed in (1, 2)
    )  # fmt: skip
    assert one.series("loss.train")["step"].tolist() == [0, 5, 10]
    assert benchmark.largest_difference(one, one) == 0.0
    assert benchmark.largest_difference(one, other) > 0.0
