"""Where points stand when runs are aligned, and the loss that all runs reached."""

import numpy as np
import pandas as pd
import pytest

from trainvitals.views.alignment import (
    ALIGNMENTS,
    LOSS,
    STEP,
    TIME,
    TITLES,
    TOKENS,
    aligned,
    common_level,
    first_at_or_below,
    value_at,
)


def table(steps, values, start=1000.0):
    return pd.DataFrame({"step": steps, "time": start + 60.0 * np.array(steps), "value": np.array(values, float)})


POINTS = table([0, 10, 20, 30], [1, 2, 3, 4])


def test_by_step_and_by_minutes_since_the_start():
    assert aligned(POINTS, STEP).tolist() == [0, 10, 20, 30]
    assert aligned(POINTS, TIME, started=1000.0).tolist() == [0, 10, 20, 30]
    assert set(TITLES) == set(ALIGNMENTS)


def test_tokens_lie_between_those_that_were_logged_and_are_not_guessed_outside():
    found = aligned(POINTS, TOKENS, table([5, 15, 25], [100, 300, 700]))
    assert found[1:3].tolist() == [200, 500]
    assert np.isnan(found[[0, 3]]).all()


def test_values_that_are_no_numbers_are_left_out_of_what_runs_are_aligned_by():
    found = aligned(POINTS, LOSS, table([0, 10, 20, 30], [3, np.nan, np.inf, 0]))
    assert found.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("reference", [None, table([], [])], ids=["none", "empty"])
def test_without_a_reference_no_point_has_a_place(reference):
    assert np.isnan(aligned(POINTS, LOSS, reference)).all()


def test_another_alignment_is_refused():
    with pytest.raises(ValueError, match="expected one of step, time, tokens, train loss"):
        aligned(POINTS, "epoch")


def test_the_common_level_is_the_worst_of_the_best():
    assert common_level([table([0, 1, 2], [3, 1, 2]), table([0, 1], [3, 0.2])]) == 1
    assert common_level([table([0], [3]), table([], [])]) is None
    assert common_level([]) is None


def test_a_loss_that_rises_again_counts_at_its_first_crossing():
    loss = table([0, 10, 20, 30], [4, 2, 3, 1])
    assert first_at_or_below(loss, 3) == 5
    assert first_at_or_below(loss, 4) == 0
    assert first_at_or_below(loss, 1.5) == 27.5
    assert first_at_or_below(loss, 0.5) is None


def test_a_value_is_read_between_two_measurements_only():
    assert value_at(POINTS, 15) == 2.5
    assert value_at(POINTS, 31) is None
    assert value_at(table([], []), 1) is None
