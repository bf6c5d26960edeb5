"""Where a loss stands still: after a fall, not during one, told without a look ahead."""

import numpy as np

from trainvitals.verdicts.plateau import stands_still


def test_a_fall_to_a_level_stands_still_once_a_third_of_the_run_is_level():
    loss = np.concatenate([np.linspace(2, 1, 40), np.ones(60)])
    still = stands_still(loss)
    first = int(np.argmax(still))
    assert 40 < first <= 60  # a third of 60 points back is the end of the fall
    assert still[first:].all()


def test_a_steady_fall_never_stands_still():
    assert not stands_still(np.exp(-np.arange(100) / 50)).any()


def test_later_points_change_nothing():
    loss = np.random.default_rng(0).normal(1.0, 0.1, 100).cumsum() ** -0.1
    np.testing.assert_array_equal(stands_still(loss)[:50], stands_still(loss[:50]))
