"""Onsets: fits against brute force, and the error of location under white and coloured noise."""

import numpy as np
import pytest
from synthetic_series import autoregressive, white

from trainvitals.verdicts.change_point import bend_errors, onset, step_errors


def squared_error(columns, y):
    solution = np.linalg.lstsq(np.stack(columns, 1), y, rcond=None)[0]
    return float(np.sum((y - np.stack(columns, 1) @ solution) ** 2))


@pytest.mark.parametrize("far_off", [0.0, 1e6])
def test_errors_of_steps_and_bends_are_those_of_least_squares_at_every_place(far_off):
    y, t = white(40) + far_off, np.arange(40.0)
    steps = [squared_error([t < k, t >= k], y) for k in range(1, 40)]
    bends = [squared_error([np.ones(40), np.maximum(t - k, 0)], y) for k in range(39)]
    assert step_errors(y) == pytest.approx(steps, rel=1e-6)
    assert bend_errors(y) == pytest.approx(bends, rel=1e-6)


def rises(kind, begin, noise, rho, seed):
    t = np.arange(100)
    shape = (t >= begin) * 1.0 if kind == "step" else np.clip((t - begin) / 30, 0, 1)
    return shape + noise * autoregressive(100, rho, seed)


@pytest.mark.parametrize("rho", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["step", "ramp"])
@pytest.mark.parametrize("rising", [True, False])
def test_the_onset_lies_within_a_few_points_of_where_the_change_began(kind, rising, rho):
    errors = []
    for seed in range(100):
        y = rises(kind, 50, 0.1, rho, seed)
        errors.append(onset(y if rising else -y, 75, rising=rising) - 50)
    # a ramp of 30 points with a tenth of its height in noise; where noise is remembered, for six points at 0.7
    allowed = 2 if kind == "step" else 8 if rho == 0 else 14
    assert np.mean(np.abs(errors) <= allowed) >= 0.95
    assert abs(np.median(errors)) <= allowed / 3


def test_what_fell_before_it_rose_began_at_the_turn():
    t = np.arange(100)
    y = np.where(t < 50, 1 - t / 50, (t - 50) / 25) + 0.02 * white(100)
    assert abs(onset(y, 80, rising=True) - 50) <= 4


def test_a_rise_in_steps_did_not_begin_long_before_the_first_of_them():
    y = np.repeat([0.0, 0.3, 0.5, 1.0], 25)
    assert onset(y, 99, rising=True) >= 24


@pytest.mark.parametrize("n", [1, 2])
def test_very_short_series_have_an_onset_within_themselves(n):
    assert 0 <= onset(np.arange(float(n)), n - 1, rising=True) < n
