"""GSNR against torch's mean and variance, and against the closed form for normal noise."""

import pytest
import torch
from cases import CASES
from fake_snapshot import with_gradients
from naive import sample_gradients

import trainvitals as tv
from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.gradient_signal import GradientSignal


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(G):
    return GradientSignal().measure(with_gradients(G))


def by_hand(G):
    return [float(column.mean() ** 2 / column.var()) for column in G.T if column.var() > 0]


def test_the_value_is_the_mean_over_parameters():
    G = normal(20, 9) + 2 * normal(9, seed=1)
    reading = measured(G)
    assert reading.value == pytest.approx(sum(by_hand(G)) / 9, rel=1e-12)
    assert reading.details["median"] == pytest.approx(sorted(by_hand(G))[4], rel=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_value_equals_the_definition_on_models(case):
    built = case.build()
    x, y = built.batch
    torch.backends.mha.set_fastpath_enabled(False)  # its kernel has no gradient
    try:
        G = sample_gradients(built.model.eval(), built.loss, x, y).detach()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    size = G.square().sum(0)
    varies = (G.var(0) * (len(G) - 1) > 1e-12 * size) & (size > 1.4e-14 * size.max())
    reading = tv.measure(built.model, loss=built.loss, batch=built.batches, what=["grad.gsnr"])["grad.gsnr"]
    assert reading.value == pytest.approx(float((G.mean(0) ** 2 / G.var(0))[varies].mean()), rel=1e-6)
    assert reading.details["num_left_out"] == int((~varies).sum())


def test_a_scale_for_each_parameter_changes_nothing():
    G = normal(20, 9) + 1
    scaled = G * torch.logspace(-3, 3, 9, dtype=torch.float64)
    assert measured(scaled).value == pytest.approx(measured(G).value, rel=1e-9)


def test_twice_the_same_samples_change_the_variance_only():
    G = normal(20, 9) + 1  # the unbiased variance of doubled samples is 38/39 of it
    assert measured(G.repeat(2, 1)).value == pytest.approx(measured(G).value * 39 / 38, rel=1e-12)


@pytest.mark.parametrize("num_samples", [8, 64])
def test_noise_gives_the_level_that_is_named(num_samples):
    reading = measured(normal(num_samples, 50_000))
    assert reading.details["noise_level"] == (num_samples - 1) / (num_samples * (num_samples - 3))
    # a ratio varies by one and a half to four times its mean (F distribution): below 2 % over 50,000 parameters
    assert reading.value == pytest.approx(reading.details["noise_level"], rel=0.06)


def test_rounding_beside_a_large_gradient_is_left_out():
    G = normal(10, 4) + 1
    reading = measured(torch.cat([G, 1e-9 * normal(10, 2, seed=1)], 1))
    assert reading.value == pytest.approx(sum(by_hand(G)) / 4, rel=1e-12)
    assert reading.details["num_left_out"] == 2


def test_parameters_without_scatter_are_left_out_and_counted():
    G = torch.cat([normal(10, 3), torch.zeros(10, 2).double(), torch.full((10, 1), 0.1).double()], 1)
    reading = measured(G)
    assert reading.value == pytest.approx(sum(by_hand(G[:, :3])) / 3, rel=1e-12)
    assert reading.details["num_left_out"] == 3


@pytest.mark.parametrize(
    ("gradients", "reason"),
    [
        (torch.ones(1, 3), "at least 2 samples"),
        (torch.ones(5, 3), "no parameter's gradient varies"),
        (torch.zeros(5, 3), "no parameter's gradient varies"),
        (torch.full((5, 3), torch.inf), "hold NaN or Inf"),
    ],
)
def test_missing_with_the_reason(gradients, reason):
    with pytest.raises(Missing, match=reason):
        measured(gradients)
