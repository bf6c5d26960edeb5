"""Spikes against the definition with numpy's medians, over sequences of losses."""

import math

import numpy as np
import pytest
from fake_snapshot import FakeSnapshot, evaluation

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.loss_spike import LossSpike, robust_z


def over(losses, **options):
    """The readings of one instance over a run's losses, or the reasons."""
    diagnostic, found = LossSpike(**options), []
    for loss in losses:
        try:
            found.append(diagnostic.measure(FakeSnapshot(train=evaluation(loss))).value)
        except Missing as reason:
            found.append(str(reason))
    return found


def losses(num=80, seed=0):
    rng = np.random.default_rng(seed)
    return np.exp(-0.05 * np.arange(num) + 0.02 * rng.normal(size=num).cumsum()).tolist()


@pytest.mark.parametrize("window", [10, 25, 200])
def test_scores_equal_the_definition(window):
    given = losses()
    changes = np.diff(np.log(given))
    found = over(given, window=window)
    assert all(isinstance(reason, str) for reason in found[:11])
    for t in range(11, 80):
        earlier = changes[max(0, t - 1 - window) : t - 1]
        median = np.median(earlier)
        mad = np.median([abs(x - median) for x in earlier])
        assert found[t] == pytest.approx((changes[t - 1] - median) / (1.4826 * mad)), t


def test_a_spike_stands_out_and_does_not_hide_the_next():
    given = losses()
    for t in (40, 60):
        given[t] *= 3
    found = over(given)
    spikes = [t for t in range(11, 80) if found[t] > 10]
    assert spikes == [40, 60]


def test_scaling_the_loss_changes_nothing():
    given = losses()
    assert over([7 * loss for loss in given])[20:] == pytest.approx(over(given)[20:], rel=1e-6)


def test_normal_changes_have_standard_deviation_one():
    rng = np.random.default_rng(0)
    found = [robust_z(rng.normal(), rng.normal(size=50)) for _ in range(4000)]
    assert np.median(np.abs(found)) == pytest.approx(0.6745, rel=0.08)  # of |z|; a median of 4,000: 2 %, of 50: bias


def test_reasons():
    found = over([1.0, 0.9, math.nan, 0.8, 0.7, -1.0, 0.5, math.inf, 0.4])
    assert found[0] == found[3] == found[6] == found[8] == "no loss at the last measurement to compare with"
    assert "0 earlier changes" in found[1]
    assert "1 earlier changes" in found[4]
    assert all("its logarithm is not a number" in found[t] for t in (2, 5, 7))
    assert "all alike" in over([2.0**-t for t in range(15)])[-1]


@pytest.mark.parametrize("wrong", [9, 20.0, True])
def test_a_window_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a whole number of at least 10"):
        LossSpike(window=wrong)
