"""What conditions read: resumed runs, gaps, NaN, and series too long to look at every point."""

import numpy as np
import pytest

from trainvitals.verdicts.series import MOST_POINTS, MOST_ROWS, Series, cleaned, cleaned_layers, thinned


def test_a_resumed_run_counts_what_it_did_the_second_time():
    steps = np.array([0, 10, 20, 30, 15, 25, 35])
    series = cleaned("a", steps, np.arange(7.0))
    assert series.step.tolist() == [0, 10, 15, 25, 35]
    assert series.value.tolist() == [0.0, 1.0, 4.0, 5.0, 6.0]


def test_points_that_are_no_numbers_are_left_out():
    series = cleaned("a", np.arange(4), np.array([1.0, np.nan, np.inf, 2.0]))
    assert (series.step.tolist(), series.value.tolist()) == ([0, 3], [1.0, 2.0])


def test_values_are_carried_forward_and_unknown_before_the_first():
    series = Series("a", np.array([10, 20]), np.array([1.0, 2.0]))
    assert np.isnan(series.at(np.array([9]))[0])
    assert series.at(np.array([10, 19, 20, 99])).tolist() == [1.0, 1.0, 2.0, 2.0]
    assert np.isnan(Series("a", np.array([], int), np.array([])).at(np.array([1]))).all()


def test_views_by_step_hold_both_ends():
    series = Series("a", np.arange(5), np.arange(5.0))
    assert series.since(2).step.tolist() == [2, 3, 4]
    assert series.until(2).step.tolist() == [0, 1, 2]
    assert series.since(None) is series


def test_long_series_are_medians_of_blocks_known_at_their_last_step():
    n = 3 * MOST_POINTS
    series = Series("a", np.arange(n), np.random.default_rng(0).normal(size=n))
    short = thinned(series)
    assert MOST_POINTS / 2 <= len(short) <= MOST_POINTS
    assert short.value[0] == np.median(series.value[:4])
    assert short.step[:2].tolist() == [3, 7]


def test_blocks_that_are_there_stay_as_the_run_goes_on():
    series = Series("a", np.arange(10_000), np.random.default_rng(0).normal(size=10_000))
    before, after = thinned(series.until(9_000)), thinned(series)
    assert after.value[: len(before)].tolist() == before.value.tolist()


def test_short_series_are_as_they_are():
    series = Series("a", np.arange(10), np.arange(10.0))
    assert thinned(series) is series


def test_layers_give_columns_medians_and_maxima_of_what_is_finite():
    value = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan], [np.inf, 2.0]])
    layers = cleaned_layers("a", np.arange(4), value, ("x", "y"))
    assert layers.column("x").step.tolist() == [0, 1]
    assert (layers.column("y").value.tolist(), layers.column("y").key) == ([5.0, 2.0], "y")
    assert layers.median().value.tolist() == [1.0, 4.0, 2.0]
    assert layers.largest().value.tolist() == [1.0, 5.0, 2.0]


def test_layers_without_a_measurement_are_empty():
    layers = cleaned_layers("a", np.empty(0, int), np.empty((0, 0)), ())
    assert not layers
    assert not layers.largest()


def test_layers_of_a_long_run_are_every_second_fourth_or_eighth_of_them():
    n = 3 * MOST_ROWS
    layers = cleaned_layers("a", np.arange(n), np.ones((n, 2)), ("x", "y"))
    assert layers.step[:3].tolist() == [0, 4, 8]
    assert len(layers) == pytest.approx(n / 4, abs=1)
