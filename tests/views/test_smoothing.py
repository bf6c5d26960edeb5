"""The smoothed line against its definition, summed point by point."""

import numpy as np
import pytest

from trainvitals.views.smoothing import smoothed


def by_definition(steps, values, width):
    result = []
    for i in range(len(values)):
        known = [j for j in range(i + 1) if np.isfinite(values[j])]
        weights = [np.exp(-(steps[i] - steps[j]) / width) for j in known]
        result.append(np.dot(weights, values[known]) / sum(weights) if known else np.nan)
    return np.array(result)


@pytest.mark.parametrize("width", [0.5, 7.0, 1e4])
def test_it_is_the_exponential_mean_over_uneven_steps_and_gaps(width):
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.integers(1, 20, 80)).astype(float)
    values = rng.normal(size=80)
    values[[0, 5, 6, 40]] = [np.nan, np.nan, np.inf, np.nan]
    assert smoothed(steps, values, width) == pytest.approx(by_definition(steps, values, width), rel=1e-9, nan_ok=True)


def test_nothing_later_enters_the_mean():
    steps, values = np.arange(10.0), np.arange(10.0) ** 2
    assert smoothed(steps, values, 3.0)[:6].tolist() == smoothed(steps[:6], values[:6], 3.0).tolist()


def test_a_metric_measured_ten_times_as_often_is_smoothed_as_much():
    often, rarely = np.arange(0.0, 1001.0, 1.0), np.arange(0.0, 1001.0, 10.0)
    a, b = (smoothed(t, np.sin(t / 100), 50.0)[-1] for t in (often, rarely))
    assert a == pytest.approx(b, abs=0.05)


def test_without_points_there_is_no_line():
    assert smoothed(np.empty(0), np.empty(0), 1.0).tolist() == []
