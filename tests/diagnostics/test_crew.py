"""Sums over batches of which others hold a part: the same numbers whoever does it, and orders that travel."""

import dataclasses
import pickle

import pytest
import torch
from cases import CASES
from dense_operators import snapshot_of

from trainvitals.diagnostics.batch_loss import mean_gradient
from trainvitals.diagnostics.crew import Far, Task
from trainvitals.diagnostics.linalg.gauss_newton import GaussNewtonOperator
from trainvitals.diagnostics.linalg.hvp import HessianOperator

CASE = {case.name: case for case in CASES}["uneven"]


class Here:
    """Does the others' part in this process, and keeps what it was asked for."""

    def __init__(self):
        self.tasks = []

    def together(self, task, values, rows, mine, theirs):
        self.tasks.append(task)
        return [a + b for a, b in zip(mine(), theirs(), strict=True)]


def far_but_the_first(batches, crew):
    assert len(batches) > 2
    return [batches[0], *(dataclasses.replace(b, far=Far(crew, i)) for i, b in enumerate(batches[1:], start=1))]


@pytest.mark.parametrize("operator", [HessianOperator, GaussNewtonOperator])
def test_products_and_gradients_are_those_of_one_process(operator):
    crew = Here()
    with snapshot_of(CASE.build()) as snapshot:
        batches, values = list(snapshot.batch_losses()), list(snapshot.parameters.values())
        shared = far_but_the_first(batches, crew)
        for whole, parts in zip(mean_gradient(batches, values), mean_gradient(shared, values), strict=True):
            torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)
        one, many = operator(batches, snapshot.parameters), operator(shared, snapshot.parameters)
        v = torch.randn(one.shape[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        torch.testing.assert_close(many @ v, one @ v, rtol=1e-12, atol=1e-14)
    kinds = {task.kind for task in crew.tasks}
    assert {"gradient", "product"} <= kinds
    for task in crew.tasks:
        assert [number for number, _ in task.chunks] == list(range(1, len(batches)))
        assert sum(share for _, share in task.chunks) == pytest.approx(1 - batches[0].share)


def test_an_order_travels():
    task = Task("product", ((1, 0.25), (2, 0.5)), (HessianOperator, "double backward", None))
    assert pickle.loads(pickle.dumps(task)) == task
