"""Signs: entered and left with patience, told from the past alone, and quiet under noise round their level."""

import numpy as np
import pytest
from synthetic_series import white

from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign, latched, run_lengths


def sign(values, threshold=1.0, comparison=ABOVE, **more):
    values = np.asarray(values, float)
    series = Series("m", np.arange(len(values)) * 10, values)
    return Sign(series, threshold, comparison, "a test", "it stood out", **more)


def test_it_takes_patience_to_enter_and_to_leave():
    found = sign([0, 2, 2, 0, 2, 2, 2, 0, 0, 2, 0, 0, 0])
    assert found.held.tolist() == [False] * 6 + [True] * 6 + [False]


def test_between_threshold_and_release_the_state_stays_as_it_is():
    found = sign([2, 2, 2, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.8, 0.8, 0.8], release=0.5)
    assert found.held.tolist() == [False, False] + [True] * 6 + [False] * 4


def test_what_it_said_does_not_change_when_points_are_added():
    values = 1 + 0.5 * white(300)
    whole = sign(values, release=0.9).held
    for n in (1, 50, 173, 300):
        assert sign(values[:n], release=0.9).held.tolist() == whole[:n].tolist()


@pytest.mark.parametrize("level", [0.7, 0.8])
def test_noise_below_the_level_does_not_switch_it_to_and_fro(level):
    changes = [int(np.abs(np.diff(sign(level + 0.1 * white(500, seed), release=0.9).held)).sum()) for seed in range(40)]
    assert max(changes) == 0


def test_noise_round_the_level_itself_switches_it_at_most_once():
    changes = [int(np.abs(np.diff(sign(1 + 0.03 * white(500, seed), release=0.9).held)).sum()) for seed in range(40)]
    assert max(changes) <= 1


def test_it_began_where_the_series_changed_and_was_noticed_when_patience_was_over():
    found = sign([0] * 20 + [3] * 10)
    assert (found.since, found.noticed) == (200, 220)


def test_a_level_that_means_something_began_at_its_crossing():
    values = np.concatenate([np.linspace(0, 2, 21), [2.0] * 5])
    assert sign(values).since < 60  # the rise began at once
    assert sign(values, starts="crossing").since == 110  # the first point above 1


def test_below_is_the_mirror_of_above():
    assert sign([0] * 5 + [-3] * 5, -1.0, BELOW).held.tolist() == sign([0] * 5 + [3] * 5).held.tolist()


def test_a_level_may_change_from_point_to_point():
    assert sign([2, 2, 2, 2], np.array([3.0, 1.0, 1.0, 1.0])).held.tolist() == [False, False, False, True]


def test_it_is_unknown_before_its_first_point_and_carried_forward_after():
    found = sign([2, 2, 2])
    assert found.held_at(np.array([-1, 5, 20, 99])).tolist() == [False, False, True, True]
    assert not sign([]).held_at(np.array([0, 1])).any()
    assert not sign([]).holds


def test_evidence_is_the_newest_number_with_its_level():
    found = sign([0, 2, 2, 3]).evidence()
    assert (found.metric, found.step, found.value, found.comparison, found.threshold, found.holds) == (
        "m", 30, 3.0, "above", 1.0, True)  # fmt: skip


def test_evidence_that_has_come_back_a_little_says_so_and_gives_the_number_that_crossed():
    found = sign([0, 2, 2, 3, 0.8], release=0.5).evidence()
    assert (found.step, found.value, found.holds) == (30, 3.0, True)
    assert found.is_past
    assert found.sentence == "it stood out, m is 3 (counts above 1); by step 40 it has come back down to 0.8"


def test_run_lengths_and_latches_of_nothing_are_nothing():
    nothing = np.empty(0, bool)
    assert len(run_lengths(nothing)) == 0
    assert len(latched(nothing, nothing, 3)) == 0


def test_a_sentence_gives_the_recorded_value_where_a_smoothed_one_decides():
    smooth, raw = np.array([0, 0, 2.0, 2.0, 2.0]), np.array([0, 0, 3.0, 3.0, 3.0])
    found = Sign(Series("m", np.arange(5) * 10, smooth), 1.0, ABOVE, "a test", "it is {value}", raw=raw,
                 smoothed="median of 5").evidence()  # fmt: skip
    assert found.sentence == "it is 3 (counts above 1)"
    assert (found.value, found.quantity) == (2.0, "m, median of 5")


def test_where_the_recorded_value_is_back_already_both_are_told():
    smooth, raw = np.array([0, 0, 2.0, 2.0, 2.0]), np.array([0, 0, 3.0, 3.0, 0.5])
    found = Sign(Series("m", np.arange(5) * 10, smooth), 1.0, ABOVE, "a test", "it is {value}", raw=raw,
                 smoothed="median of 5").evidence()  # fmt: skip
    assert found.sentence == "it is 0.5; the median of 5, 2, counts above 1"


def test_of_what_has_come_back_a_little_both_recorded_values_are_given_with_their_steps():
    smooth, raw = np.array([0, 2.0, 2.0, 2.0, 2.0, 0.9]), np.array([0, 3.0, 3.0, 3.0, 0.8, 0.5])
    found = Sign(Series("m", np.arange(6) * 10, smooth), 1.0, ABOVE, "a test", "it is {value}", raw=raw, release=0.7,
                 smoothed="median of 5").evidence()  # fmt: skip
    assert (found.step, found.sentence) == (30, "it is 3 (counts above 1); by step 50 it has come back down to 0.5")


def test_words_may_depend_on_the_point_that_is_told():
    found = Sign(Series("m", np.arange(3) * 10, np.array([2.0, 2.0, 4.0])), 1.0, ABOVE, "a test",
                 lambda at: f"at point {at} it is {{value}}").evidence()  # fmt: skip
    assert found.words == "at point 2 it is 4"
