"""Groups of samples as numbers, texts and tensors."""

import numpy as np
import pytest
import torch

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.sample_groups import check_groups, sample_groups


@pytest.mark.parametrize("given", [[10, 9, 10], torch.tensor([10, 9, 10]), np.array([10, 9, 10])], ids=str)
def test_numbers_are_ordered_by_size_not_by_letters(given):
    check_groups(given, "groups", "per_group")
    index, names = sample_groups(given, 3, "groups", "train")
    assert names == ("9", "10")
    assert index.tolist() == [1, 0, 1]


def test_numbers_and_texts_may_stand_side_by_side():
    index, names = sample_groups(["b", 2, "a", 1], 4, "groups", "train")
    assert names == ("1", "2", "a", "b")
    assert index.tolist() == [3, 1, 2, 0]


def test_missing_with_the_reason():
    with pytest.raises(Missing, match=r"no groups were given; write groups=\[...\]"):
        sample_groups((), 3, "groups", "train")
    with pytest.raises(Missing, match="names groups of 2 samples, the held-out probe has 3"):
        sample_groups([0, 1], 3, "heldout_groups", "held-out")


@pytest.mark.parametrize(
    "given", ["land", [0.5, 1.0], torch.zeros(2, 2, dtype=torch.long), torch.zeros(2), [True], 7, [[0], [1]]], ids=str
)
def test_what_is_no_group_is_refused(given):
    with pytest.raises(ValueError, match="expected a whole number or a name for each sample"):
        check_groups(given, "groups", "per_group")
