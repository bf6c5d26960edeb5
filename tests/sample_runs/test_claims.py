"""How a claim reads its runs."""

from __future__ import annotations

import pytest
import torch

import trainvitals as tv
from trainvitals.sample_runs.claims import at, course, last, reached


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tv.Run:
    model, x = torch.nn.Linear(2, 2), torch.randn(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tv.watch(model, optimizer, loss=torch.nn.functional.mse_loss, train=(x, x), probes=["weights.norm"], every=10,
                  store=tmp_path_factory.mktemp("store"), budget=None) as watched:  # fmt: skip
        for step in range(30):
            if step % 10 == 0:
                watched.log(mine=step)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), x).backward()
            optimizer.step()
    return tv.open_run(watched.path)


def test_a_course_is_steps_and_values(run):
    steps, values = course(run, "mine")
    assert steps.tolist() == [0, 10, 20]
    assert values.tolist() == [0, 10, 20]
    assert last(run, "mine") == 20
    assert last(run, "mine", mean_of=2) == 15
    assert at(run, "mine", 12) == 10
    assert reached(run, "mine", 5) == 10
    assert reached(run, "mine", 50) == float("inf")


def test_a_course_of_an_array_is_that_of_one_key(run):
    steps, _ = course(run, "weights.norm.value", "weight")
    assert steps.tolist() == [0, 10, 20, 30]
    with pytest.raises(ValueError, match="got 'nothing'"):
        course(run, "weights.norm.value", "nothing")
