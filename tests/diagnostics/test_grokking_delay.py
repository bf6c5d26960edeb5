"""The delay of held-out accuracy behind train accuracy over scripted runs."""

import pytest
import torch
from fake_snapshot import FakeSnapshot, evaluation

from trainvitals.diagnostics.base import Missing
from trainvitals.diagnostics.grokking_delay import GrokkingDelay


def at(step, train, heldout):
    def of(share):
        y = torch.zeros(100, dtype=torch.long)
        z = torch.eye(2)[(torch.arange(100) >= round(100 * share)).long()]
        return evaluation(0.0, z, y)

    return FakeSnapshot(step=step, train=of(train), heldout=of(heldout))


def last(diagnostic, run):
    """The reading of each measurement: its value, or None where it is missing."""
    found = []
    for step, train, heldout in run:
        try:
            found.append(diagnostic.measure(at(step, train, heldout)))
        except Missing:
            found.append(None)
    return found


RUN = [(0, 0.1, 0.1), (50, 0.9, 0.1), (100, 0.96, 0.2), (150, 1.0, 0.2), (400, 0.9, 0.95), (500, 1.0, 0.99)]


def test_the_delay_is_the_ratio_of_the_first_steps_and_stays():
    *before, found, later = last(GrokkingDelay(), RUN)
    assert before == [None] * 4
    assert found.value == later.value == 400 / 100
    assert found.details == {"train_step": 100, "heldout_step": 400, "train_before": 50, "heldout_before": 150}
    assert found.error == 400 / 50 - 4  # the train accuracy may have been there just after step 50


def test_the_error_bounds_what_finer_measurements_would_say():
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        train_at, heldout_at = (int(i) for i in torch.randint(10, 90, (2,), generator=generator))
        fine = [(t, 1.0 if t >= train_at else 0.0, 1.0 if t >= heldout_at else 0.0) for t in range(101)]
        coarse = [row for row in fine if row[0] % 10 == 0]
        truth, found = last(GrokkingDelay(), fine)[-1].value, last(GrokkingDelay(), coarse)[-1]
        assert truth == heldout_at / train_at
        assert abs(found.value - truth) <= found.error + 1e-12


def test_another_threshold_gives_other_steps_and_held_out_may_come_first():
    assert last(GrokkingDelay(threshold=0.9), RUN)[-1].details["train_step"] == 50
    found = last(GrokkingDelay(), [(0, 0, 0), (10, 0.5, 1.0), (20, 1.0, 0.5)])[-1]
    assert found.value == 0.5


def test_missing_with_the_reason():
    with pytest.raises(Missing, match=r"0\.9 on the train and 0\.1 on the held-out probe: both .* reached 0\.95"):
        GrokkingDelay().measure(at(0, 0.9, 0.1))
    with pytest.raises(Missing, match="at step 0"):
        GrokkingDelay().measure(at(0, 1.0, 1.0))
    with pytest.raises(Missing, match="no heldout"):
        GrokkingDelay().measure(FakeSnapshot(train=at(0, 1.0, 1.0).train))
    with pytest.raises(Missing, match="not class labels"):
        regression = evaluation(0.0, torch.randn(4, 2), torch.randn(4, 2))
        GrokkingDelay().measure(FakeSnapshot(train=regression, heldout=regression))


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(ValueError, match="options of 'grokking_delay'"):
        GrokkingDelay(threshold=threshold)
