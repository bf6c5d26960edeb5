"""Late generalisation: fitted, at chance, decay, and weights that move; without any one of them it is not that."""

import numpy as np
import pytest
from synthetic_series import STEPS, facts

from trainvitals.schema import VerdictState
from trainvitals.verdicts.grokking_possible import GrokkingPossible
from trainvitals.verdicts.run_facts import Unmeasured

FITTED = np.minimum(STEPS / 400, 1.0)
CHANCE = np.full(len(STEPS), 0.1)


def judged(train=FITTED, heldout=CHANCE, decay=1.0, update=1e-3):
    run = facts(
        {
            "accuracy.train": (STEPS, train),
            "accuracy.heldout": (STEPS, heldout),
            "update.ratio": (STEPS, np.full((len(STEPS), 2), update), ("a", "b")),
        },
        {
            "optimizer": {
                "class": "AdamW",
                "groups": [{"lr": 1e-3, **({} if decay is None else {"weight_decay": decay})}],
            }
        },
    )
    return GrokkingPossible().judge(run)


def test_all_four_are_worth_watching_since_the_data_was_fitted():
    judgement = judged()
    assert judgement.state == VerdictState.WATCH
    assert 340 <= judgement.since <= 420


@pytest.mark.parametrize("missing", [{"train": 0.5 * FITTED}, {"heldout": FITTED}, {"decay": 0.0}, {"update": 1e-8}])
def test_three_of_the_four_are_not(missing):
    assert judged(**missing).state == VerdictState.HEALTHY


def test_it_ends_when_generalisation_comes():
    assert judged(heldout=np.where(STEPS < 1500, 0.1, 0.95)).state == VerdictState.HEALTHY


def test_an_optimiser_that_was_not_recorded_is_unmeasured():
    with pytest.raises(Unmeasured, match="weight decay"):
        judged(decay=None)
