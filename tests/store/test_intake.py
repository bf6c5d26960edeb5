"""What of a reading's details a run keeps."""

import numpy as np
import pytest
import torch

from trainvitals.store.intake import MAX_DETAIL_NUMBERS, split_details


@pytest.mark.parametrize(
    "value",
    [np.arange(3.0), torch.arange(3.0), torch.arange(3.0, dtype=torch.bfloat16), torch.arange(3.0).requires_grad_()],
    ids=["array", "tensor", "bfloat16", "graph"],
)
def test_one_dimension_is_kept_whoever_holds_it(value):
    small, large = split_details({"grid": value})
    assert small == {}
    np.testing.assert_array_equal(large["grid"], [0.0, 1.0, 2.0])


def test_whole_numbers_stay_whole_and_long_lists_become_arrays():
    _, large = split_details({"counts": torch.tensor([1, 2]), "long": list(range(1000))})
    assert large["counts"].dtype == np.int64
    assert large["long"].tolist() == list(range(1000))


def test_small_plain_values_go_as_they_are():
    plain = {"engine": "native", "num": 3, "share": np.float64(0.5), "left_out": {"fc": "zero"}, "pair": [1, 2]}
    small, large = split_details(plain)
    assert small == {**plain, "share": 0.5}
    assert large == {}


def test_matrices_and_what_is_too_large_or_no_number_are_left_out():
    odd = {"matrix": np.zeros((2, 2)), "vectors": torch.zeros(4, 2), "words": np.array(["a"]), "thing": object(),
           "huge": np.zeros(MAX_DETAIL_NUMBERS + 1)}  # fmt: skip
    assert split_details(odd) == ({}, {})
