"""A helper's part of every sum: with the leader's it is the whole, on every model of the cases."""

from dataclasses import replace

import pytest
import torch
from cases import CASES
from dense_operators import snapshot_of

from trainvitals.diagnostics.batch_loss import mean_gradient
from trainvitals.diagnostics.crew import Far
from trainvitals.diagnostics.linalg.fisher import FisherOperator
from trainvitals.diagnostics.linalg.gauss_newton import GaussNewtonOperator
from trainvitals.diagnostics.linalg.hvp import HessianOperator
from trainvitals.probes.crew_helper import Work
from trainvitals.probes.rank_probes import parts_for

NUM_RANKS = 3
OPERATORS = [HessianOperator, GaussNewtonOperator, FisherOperator]


class CrewOfThisProcess:
    """Has the parts of the helpers done by what they use, here."""

    def __init__(self, subject, batch, parts):
        self.batch, self.mine = batch, parts[0]
        self.helpers = [Work(subject, batch, part) for part in parts[1:]]
        self.asked = []

    def far(self, losses):
        return [loss if i in self.mine else replace(loss, far=Far(self, i)) for i, loss in enumerate(losses)]

    def together(self, task, values, rows, mine, theirs):
        self.asked.append(task.kind)
        for helper in self.helpers:
            helper.take(1, [value.detach().clone() for value in values])
        parts = [mine(), *(helper.found(task, 1, rows) for helper in self.helpers)]
        return [sum(tensors) for tensors in zip(*parts, strict=True)]


def with_crew(snapshot):
    subject = snapshot._subject
    subject.crew = CrewOfThisProcess(subject, *parts_for(subject, NUM_RANKS))
    return subject.crew


def vectors_for(operator):
    return torch.randn(operator.shape[0], 2, generator=torch.Generator().manual_seed(0), dtype=operator.dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_products_and_slopes_add_up_to_those_of_one_process(case):
    with snapshot_of(case.build()) as snapshot:
        whole = [cls(snapshot.batch_losses(), snapshot.parameters) for cls in OPERATORS]
        expected = [operator @ vectors_for(operator) for operator in whole]
        slope = whole[0].gradient
        crew = with_crew(snapshot)
        shared = [cls(snapshot.batch_losses(), snapshot.parameters) for cls in OPERATORS]
        found = [operator @ vectors_for(operator) for operator in shared]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(shared[0].gradient, slope, rtol=1e-9, atol=1e-11)
        assert crew.asked == ["product", "product", "product", "slope"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_at_other_weights_add_up(case):
    with snapshot_of(case.build()) as snapshot:
        values = [p + 0.1 * torch.ones_like(p) for p in snapshot.parameters.values()]
        expected = mean_gradient(snapshot.batch_losses(), values)
        crew = with_crew(snapshot)
        torch.testing.assert_close(mean_gradient(snapshot.batch_losses(), values), expected, rtol=1e-9, atol=1e-11)
        assert crew.asked == ["gradient"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_per_sample_gradients_add_up_and_every_sample_stands_at_its_place(case):
    due = ["grad.noise_scale", "grad.rank"]
    with snapshot_of(case.build(), due) as alone, snapshot_of(case.build(), due) as together:
        crew = with_crew(together)
        expected, found = alone.gradient_sums, together.gradient_sums
        assert crew.asked == ["fold"]
        for name in ("sum", "unit_sum", "sum_of_squares", "squared_norms", "class_sizes", "class_counts",
                     "class_sums", "class_unit_sums", "block_sums"):  # fmt: skip
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12)
        assert found.num_samples == expected.num_samples
        torch.testing.assert_close(
            together.gradient_gram.matrix(), alone.gradient_gram.matrix(), rtol=1e-9, atol=1e-12
        )
        assert together.gradient_gram.chosen.tolist() == alone.gradient_gram.chosen.tolist()


def test_the_gradient_of_the_step_is_shared_too():
    with snapshot_of(CASES[0].build(), ["grad.norm"]) as snapshot:
        expected = {name: t.clone() for name, t in snapshot.gradient.items()}
    with snapshot_of(CASES[0].build(), ["grad.norm"]) as snapshot:
        crew = with_crew(snapshot)
        torch.testing.assert_close(dict(snapshot.gradient), expected, rtol=1e-9, atol=1e-12)
        assert crew.asked


def test_a_helper_without_a_chunk_gives_zeros():
    with snapshot_of(CASES[0].build()) as snapshot:
        subject = snapshot._subject
        batch, _ = parts_for(subject, 2)
        subject.crew = crew = CrewOfThisProcess(subject, batch, [range(1), range(1, len(batch.chunks)), range(0)])
        operator = HessianOperator(snapshot.batch_losses(), snapshot.parameters)
        products = operator @ vectors_for(operator)
        subject.crew = None
        whole = HessianOperator(snapshot.batch_losses(), snapshot.parameters)
        torch.testing.assert_close(products, whole @ vectors_for(whole), rtol=1e-9, atol=1e-11)
        assert crew.helpers[1]._operators == {}
