"""The weights as a whole: total norm, growth and jumps, and which tensors are large enough to count."""

import numpy as np
import pytest
from synthetic_series import facts

from trainvitals.verdicts.weight_course import large_tensors, largest_growth, largest_jump, total_norm

STEPS = np.arange(6)


def run(values, keys=("w", "b")):
    return facts({"weights.norm.value": (STEPS[: len(values)], np.asarray(values, float), keys)})


def test_the_total_norm_is_that_of_all_tensors_where_each_is_a_number():
    found = total_norm(run([[3, 4], [np.nan, 1], [6, 8]]))
    assert (found.step.tolist(), found.value.tolist()) == ([0, 2], [5.0, 10.0])


def test_small_tensors_do_not_count():
    assert large_tensors(run([[10, 0.1], [20, 9]])).keys == ("w",)


def test_growth_and_jumps_are_the_largest_so_far_and_the_first_two_do_not_count():
    found = run([[1, 0], [3, 0], [6, 0], [6, 0], [18, 0], [9, 0]])
    assert largest_growth(found).value.tolist() == [1, 3, 6, 6, 18, 18]
    jumps = largest_jump(found)
    assert (jumps.step.tolist(), jumps.value.tolist()) == ([3, 4, 5], [1.0, 3.0, pytest.approx(3.0)])


def test_nothing_measured_gives_nothing():
    empty = facts({})
    assert not total_norm(empty)
    assert not largest_growth(empty)
    assert not largest_jump(empty)
    assert not large_tensors(empty)
