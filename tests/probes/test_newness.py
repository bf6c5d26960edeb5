"""How much a metric has changed: relative, less what its error explains."""

import numpy as np
import pytest

from trainvitals.probes.newness import Newness, squared_change
from trainvitals.schema import Reading


def test_the_change_is_relative_and_its_own_opposite():
    one, other = np.array([3.0, 4.0]), np.array([6.0, 8.0])
    assert squared_change(one, other) == pytest.approx(25 / 7.5**2)
    assert squared_change(one, other) == squared_change(other, one) == squared_change(100 * one, 100 * other)


def test_what_the_error_explains_is_no_change():
    assert squared_change(np.array([1.0]), np.array([1.1]), error=0.1) == 0.0
    assert squared_change(np.array([1.0]), np.array([2.0]), error=0.1) == pytest.approx((1 - 0.02) / 1.5**2)
    assert squared_change(np.array([1.0, 1.0]), np.array([1.1, 1.1]), error=[0.1, 0.1]) == 0.0


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [([0.0], [0.0], 0.0), ([np.nan], [np.nan], 0.0), ([1.0], [np.nan], 1.0), ([1.0], [1.0, 2.0], 1), ([1], [-1], 1)],
)
def test_the_edges(old, new, expected):
    assert squared_change(np.array(old, float), np.array(new, float)) == expected


def test_parts_count_in_the_mean_and_missing_ones_do_not():
    newness = Newness(lag_seconds=1.0)
    assert newness.seen("m", [Reading(value=1.0), Reading.absent("no"), Reading(value=[1.0])], 1.0) is None
    found = newness.seen("m", [Reading(value=1.0), Reading(value=2.0), Reading(value=[3.0])], 3.0)
    assert found == (pytest.approx((0 + 1.0) / 2), 2.0)
    assert newness.seen("m", [Reading.absent("no")], 4.0) is None


def test_the_earlier_value_is_old_enough_whatever_came_between():
    newness = Newness(lag_seconds=10.0)
    found = [newness.seen("m", [Reading(value=1.0 + second)], float(second)) for second in range(21)]
    assert [second for second, change in enumerate(found) if change is not None] == [10, 20]
    assert found[20] == (pytest.approx(10.0**2 / 16.0**2), 10.0)
