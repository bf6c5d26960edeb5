"""The learning rate round a step: measured on both sides, or unknown."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts, learned

from trainvitals.verdicts.rate_leap import rate_around

MIDDLE = int(STEPS[50])


def run(rates):
    return facts({"loss.train": (STEPS, learned()), "learning_rate": (STEPS, np.asarray(rates)[:, None], ("0",))})


@pytest.mark.parametrize(("after", "leapt"), [(0.1, False), (0.14, False), (0.16, True), (0.01, False)])
def test_a_rise_by_half_is_a_leap(after, leapt):
    found = rate_around(run(np.where(STEPS < MIDDLE, 0.1, after)), MIDDLE)
    assert found is not None
    assert (found.before, found.after) == (0.1, after)
    assert (found.step_before, found.step_after) == (STEPS[49], MIDDLE)
    assert found.has_leapt == leapt


def test_one_side_alone_tells_nothing():
    flat = run(np.full(len(STEPS), 0.1))
    assert rate_around(flat, int(STEPS[0])) is None
    assert rate_around(flat, int(STEPS[-1]) + 1) is None
    assert rate_around(facts({"loss.train": (STEPS, learned())}), MIDDLE) is None
