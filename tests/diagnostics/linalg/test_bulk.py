import numpy as np
import pytest

from trainvitals.diagnostics.linalg.bulk import KrylovSpectrum, find_bulk, weighted_quantile


def spectrum_of(values, residuals=None, num_each=1):
    """Ritz values that stand for `num_each` eigenvalues each."""
    values = np.array(values, dtype=float)
    residuals = np.zeros(len(values)) if residuals is None else np.array(residuals, dtype=float)
    size = num_each * len(values)
    return KrylovSpectrum(values, residuals, np.full(len(values), 1 / len(values)), size, len(values))


BULK = np.linspace(1, -1, 48)


def test_the_edge_is_the_lowest_gap():
    found = find_bulk(spectrum_of(np.r_[90.0, 9, 8, BULK]), 1.5)
    assert (found.num_outliers, found.edge, found.is_clear) == (3, 1.0, True)
    assert find_bulk(spectrum_of(BULK), 1.5).num_outliers == 0
    assert find_bulk(spectrum_of(np.r_[1.4, BULK]), 1.5).num_outliers == 0
    assert find_bulk(spectrum_of(np.r_[1.4, BULK]), 1.3).num_outliers == 1


def test_outliers_below_zero_are_none():
    found = find_bulk(spectrum_of(np.r_[9.0, BULK, -7.0, -8.0]), 1.5)
    assert (found.num_outliers, found.is_clear) == (1, True)


def test_an_unsettled_value_is_no_outlier():
    residuals = np.zeros(50)
    residuals[1] = 0.6
    found = find_bulk(spectrum_of(np.r_[9.0, 8.0, BULK], residuals), 1.5)
    assert found.num_outliers == 0
    assert not found.is_clear


def test_an_unsettled_value_within_a_gap_hides_it():
    # 1.25 may be on its way from 1.6 to 1: without it the ratio is 1.6
    values, residuals = np.r_[1.6, 1.25, BULK], np.r_[0, 0.2, np.zeros(48)]
    assert not find_bulk(spectrum_of(values, residuals), 1.5).is_clear
    assert find_bulk(spectrum_of(values), 1.5).is_clear


def test_a_value_that_may_still_rise_past_the_ratio_is_not_clear():
    assert find_bulk(spectrum_of(np.r_[1.4, BULK], np.r_[0.05, np.zeros(48)]), 1.5).is_clear
    assert not find_bulk(spectrum_of(np.r_[1.4, BULK], np.r_[0.2, np.zeros(48)]), 1.5).is_clear


def test_where_a_stretch_of_the_bulk_begins_no_gap_is_looked_for():
    values, residuals = np.r_[9.0, 1, 0.9, 0.5, 0.2, np.zeros(45)], np.r_[0, np.full(49, 0.1)]
    assert not find_bulk(spectrum_of(values, residuals), 1.5).is_clear
    assert find_bulk(spectrum_of(values, residuals, num_each=20), 1.5).is_clear


def test_quantile_counts_weight():
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([0.2, 0.5, 0.3])
    assert [weighted_quantile(values, weights, q) for q in (0.1, 0.5, 0.51, 0.8, 0.81, 1)] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_count_does_not_hang_on_the_unit(scale):
    assert find_bulk(spectrum_of(scale * np.r_[9.0, 8, BULK]), 1.5).num_outliers == 2
