"""Spikes: found where they are, told from noise of light and heavy tails, and from changes of level."""

import numpy as np
import pytest
from synthetic_series import CHANCE, autoregressive, white

from trainvitals.verdicts.series import Series
from trainvitals.verdicts.spikes import find_spikes

N = 400


def series(values):
    return Series("loss", np.arange(len(values)), np.asarray(values, float))


def falling(noise, seed=0, rho=0.0):
    return (0.1 + 2.2 * np.exp(-np.arange(N) / 80)) * np.exp(noise * autoregressive(N, rho, seed))


@pytest.mark.parametrize("at", [[60], [120, 200, 330]])
def test_every_spike_that_recovers_is_found_at_its_first_point(at):
    loss = falling(0.03)
    for i in at:
        loss[i : i + 5] *= [20, 12, 6, 3, 1.5]
    found = find_spikes(series(loss), CHANCE)
    assert [spike.step for spike in found] == at
    assert all(spike.step < spike.recovered <= spike.step + 5 for spike in found)
    assert found[-1].height == pytest.approx(20, rel=0.2)


@pytest.mark.parametrize("rho", [0.0, 0.9])
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_noise_has_no_spikes(noise, rho):
    assert sum(len(find_spikes(series(falling(noise, seed, rho)), CHANCE)) for seed in range(50)) == 0


def test_heavy_tails_of_batches_are_no_spikes():
    found = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        loss = 0.02 * np.exp(1.0 * rng.standard_t(3, N))
        found += len(find_spikes(series(np.minimum(loss, 1.0)), CHANCE, is_batch=True))
    assert found <= 5  # of 20,000 points


@pytest.mark.parametrize(
    ("height", "width", "at", "expected"),
    [(1.0, 1, [200], 0), (5.0, 1, [200], 0), (50.0, 1, [200], 1), (5.0, 1, [200, 250, 300], 3),
     (1.0, 1, [200, 250, 300], 0), (1.0, 3, [200], 1)],
)  # fmt: skip
def test_a_bad_batch_is_a_spike_if_it_lasts_or_is_far_worse_than_guessing_or_one_of_three(height, width, at, expected):
    loss = falling(0.05)
    for i in at:
        loss[i : i + width] = height
    assert len(find_spikes(series(loss), CHANCE, is_batch=True)) == expected
    assert len(find_spikes(series(loss), CHANCE)) == len(at)


def test_a_loss_far_worse_than_guessing_is_a_spike_in_the_loudest_noise():
    loss = 0.02 * np.exp(1.5 * white(N))
    loss[200] = 300.0
    assert [spike.step for spike in find_spikes(series(loss), CHANCE, is_batch=True)] == [200]


def test_what_stays_up_is_a_change_of_level():
    loss = falling(0.03)
    loss[200:] *= 10
    assert find_spikes(series(loss), CHANCE) == []


def test_a_small_bump_far_below_guessing_is_none():
    loss = 1e-4 * np.exp(0.02 * white(N))
    loss[200:203] *= 20
    assert find_spikes(series(loss), CHANCE) == []


def test_what_was_found_stays_found_as_the_run_goes_on():
    loss = falling(0.03)
    for i in (60, 150, 300):
        loss[i : i + 3] *= 15
    whole = find_spikes(series(loss), CHANCE)
    assert find_spikes(series(loss[:200]), CHANCE) == whole[:2]


def test_a_short_series_has_none():
    assert find_spikes(series([1.0, 9.0, 1.0]), CHANCE) == []
