"""The jackknife against the closed form of a mean, and against the spread of an estimate that is not linear."""

import pytest
import torch

from trainvitals.diagnostics.jackknife import jackknife_error


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blocks_of(num_samples, num_blocks):
    return torch.arange(num_samples) % num_blocks


def error_of(function, samples, num_blocks):
    blocks = blocks_of(len(samples), num_blocks)
    left_out = torch.stack([function(samples[blocks != k]) for k in range(num_blocks)])
    return jackknife_error(float(function(samples)), left_out, torch.bincount(blocks))


def test_one_sample_a_block_gives_the_standard_error_of_a_mean():
    samples = normal(20)
    expected = float(samples.std()) / 20**0.5
    assert error_of(torch.mean, samples, 20) == pytest.approx(expected, rel=1e-12)


def test_a_mean_over_equal_blocks_gives_the_standard_error_of_block_means():
    samples = normal(48)
    means = torch.stack([samples[k::16].mean() for k in range(16)])
    assert error_of(torch.mean, samples, 16) == pytest.approx(float(means.std()) / 4, rel=1e-12)


def test_a_shift_of_the_estimate_changes_nothing():
    samples = normal(50)
    one = error_of(torch.mean, samples, 16)
    assert error_of(lambda s: s.mean() + 1000, samples, 16) == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("num_samples", [64, 50])  # equal blocks, and unequal ones of 4 and 3
def test_the_error_is_the_spread_of_the_estimate(num_samples):
    def logarithm(samples):
        return samples.exp().mean().log()

    draws = [0.5 * normal(num_samples, seed=seed) for seed in range(300)]
    spread = torch.stack([logarithm(draw) for draw in draws]).std()
    errors = torch.tensor([error_of(logarithm, draw, 16) for draw in draws])
    assert float(errors.square().mean().sqrt() / spread) == pytest.approx(1, abs=0.15)  # 4 % of noise in either
