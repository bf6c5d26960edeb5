import numpy as np
import pytest
import torch
from cases import CASES
from dense_operators import math_attention, snapshot_of, trainable
from quadratics import linear_regression
from torch import nn

import trainvitals as tv
from trainvitals.diagnostics.batch_sharpness import curvature_along_gradient

NAME = "batch_sharpness"


def measured(built, seed=0, **options):
    return tv.measure(built.model, loss=built.loss, batch=built.batches, what={NAME: options}, seed=seed)[NAME]


def along_gradient(built):
    """gᵀHg/‖g‖² by two backward passes of plain torch."""
    x, y = built.batch
    parameters = trainable(built.model.eval())
    with math_attention():
        loss = built.loss(built.model(x), y)
        parts = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        g = torch.cat([part.reshape(-1) for part in parts])
        rows = torch.autograd.grad(g @ g.detach(), parameters, materialize_grads=True)
    product, g = torch.cat([row.reshape(-1) for row in rows]), g.detach()
    return float(g @ product / (g @ g))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_each_mini_batch_equals_its_dense_hessian_and_they_part_the_probe(case):
    built = case.build()
    x, y = built.batch
    size = 5
    with snapshot_of(built) as snapshot:
        order = torch.randperm(len(x), generator=snapshot.generator(f"mini-batches of {size}"))
        found = [curvature_along_gradient(b, snapshot.parameters) for b in snapshot.batch_losses(size)]
    expected = []
    for start in range(0, len(x) - size + 1, size):
        pick = order[start : start + size]
        part = case.build()
        part.batches = [(x[pick], y[pick])]
        expected.append(along_gradient(part))
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    reading = measured(built, batch_size=size)
    assert reading.value == pytest.approx(np.mean(expected), rel=1e-8)
    assert reading.error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(len(expected)), rel=1e-6)
    assert reading.hvps == len(expected) == reading.details["num_batches"]


def test_the_mean_over_all_batches_is_within_twice_the_error_in_nine_of_ten_seeds():
    built, theta, _, _ = linear_regression(num_samples=512)
    x, y = built.batch
    generator, all_batches = torch.Generator().manual_seed(0), []
    for _ in range(20_000):
        pick = torch.randint(512, (32,), generator=generator)
        a = x[pick]
        g = 2 * a.T @ (a @ theta - y[pick, 0]) / 32
        all_batches.append(2 * float((a @ g) @ (a @ g)) / 32 / float(g @ g))
    exact = np.mean(all_batches)
    found = [measured(built, seed=seed) for seed in range(40)]
    assert sum(abs(f.value - exact) <= 2 * f.error for f in found) >= 36
    assert len({f.value for f in found}) == 40


def test_batches_as_large_as_half_the_probe_of_equal_samples_give_the_full_batch():
    x = torch.tensor([[1.0, 2.0]]).repeat(8, 1)
    model = nn.Linear(2, 1, bias=False)
    found = tv.measure(model, loss=nn.functional.mse_loss, batch=(x, torch.zeros(8, 1)), what={NAME: {"batch_size": 4}})
    assert found[NAME].value == pytest.approx(10.0, rel=1e-5)  # the only curvature: 2‖x‖²
    assert found[NAME].error == pytest.approx(0.0, abs=1e-5)


def test_too_few_samples_say_so():
    assert "fewer than two mini-batches of 32" in measured(CASES[0].build()).missing


def test_a_zero_gradient_says_so():
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    found = tv.measure(model, loss=nn.functional.mse_loss, batch=(torch.ones(8, 2), torch.zeros(8, 1)),
                       what={NAME: {"batch_size": 4}})[NAME]  # fmt: skip
    assert "gradient of a mini-batch is zero" in found.missing


def test_batches_that_cannot_be_joined_say_so():
    model = nn.Sequential(nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(3, 1))
    batches = [(torch.randn(4, 1, 5), torch.zeros(4, 1)), (torch.randn(4, 1, 7), torch.zeros(4, 1))]
    found = tv.measure(model, loss=nn.functional.mse_loss, batch=batches, what={NAME: {"batch_size": 2}})[NAME]
    assert "cannot be joined" in found.missing


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_batches": 1}])
def test_bad_options_are_told(options):
    with pytest.raises(ValueError, match="expected batch_size"):
        measured(CASES[0].build(), **options)
