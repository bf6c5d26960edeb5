"""Deviations against those that the noise was made with."""

import numpy as np
import pytest
from synthetic_series import white

from trainvitals.verdicts.noise import noise_deviation, robust_deviation, running_median, running_noise


def test_deviations_are_those_of_normal_noise_whatever_the_course_or_single_outliers():
    noise = 0.3 * white(4000)
    course = np.exp(-np.arange(4000) / 800) + np.arange(4000) / 1000
    spoiled = noise.copy()
    spoiled[::100] += 50
    assert robust_deviation(noise) == pytest.approx(0.3, rel=0.05)
    assert noise_deviation(noise + course) == pytest.approx(0.3, rel=0.05)
    assert robust_deviation(spoiled) == pytest.approx(0.3, rel=0.06)


def test_the_running_median_looks_back_only():
    y = white(50)
    whole = running_median(y, 5)
    assert all(whole[i] == np.median(y[max(0, i - 4) : i + 1]) for i in range(50))
    assert running_median(y[:20], 5).tolist() == whole[:20].tolist()


def test_the_running_noise_follows_a_noise_that_changes_and_looks_back_only():
    y = np.concatenate([0.1 * white(300), 0.4 * white(300, 1)]) + np.arange(600) / 10
    whole = running_noise(y)
    assert np.median(whole[100:300]) == pytest.approx(0.1, rel=0.15)
    assert np.median(whole[400:]) == pytest.approx(0.4, rel=0.15)
    assert running_noise(y[:200]).tolist() == whole[:200].tolist()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_points_have_no_noise(n):
    assert noise_deviation(np.arange(float(n))) == 0.0
    assert running_noise(np.arange(float(n))).tolist() == [0.0] * n
