"""Grokking is possible: the train data is fitted, held-out data is at chance, and decay still moves the weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_POWER = "Power et al. 2022, Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets, section 3"
_LIU = "Liu et al. 2023, Omnigrok: Grokking Beyond Algorithmic Data, section 3"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
_FITTED, _KNOWN, _MOVES = 0.95, 0.5, 1e-5


class GrokkingPossible(Condition):
    """Four things at once: train accuracy near 1, held-out accuracy far below it, weight decay, weights that move.

    Without decay nothing drives the weights on, and it stays healthy: fitted and at chance is then where it ends.
    """

    id = "grokking_possible"
    title = "Generalisation may come late"
    says = "The train data is fitted and held-out data is not; with decay at work it may yet be understood."
    reads = ("accuracy.train", "accuracy.heldout", "chance.accuracy", "update.ratio", "weights.norm.value")
    source = _POWER
    is_informational = True
    advice = (
        Advice("Train on if you can afford it, and watch the weight norm: generalisation comes as it falls.", _LIU),
        Advice(
            "Raise the weight decay, or the share of the data that is trained on: both make it come sooner.", _POWER
        ),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when all four hold."""
        train, heldout = run.need("accuracy.train"), run.need("accuracy.heldout")
        decay = run.optimizer.get("weight_decay")
        if not isinstance(decay, (int, float)):
            raise Unmeasured("optimizer: its weight decay was not recorded")
        chance = run.chance_accuracy or 0.0
        level = chance + 0.5 * (1 - chance) * _KNOWN
        fitted = Sign(train, _FITTED, ABOVE, _POWER, "the train data is fitted, with an accuracy of {value:share}",
                      release=_FITTED - 0.1, reliability=0.6)
        unknown = Sign(
            heldout.with_values(running_median(heldout.value, 5)),
            level,
            BELOW,
            f"a quarter of the way from chance to 1; {_BANK}",
            "the held-out accuracy is {value:share}",
            release=2 * level,
            reliability=0.6,
        )
        moves = _moves(run)
        signs = [fitted, unknown, moves]
        found = weigh(signs, watch=3, alarm=4, leading=[fitted])
        judgement = found.judgement("Generalisation may come late", "This is not the wait before late generalisation")
        if judgement.state == VerdictState.HEALTHY:
            return judgement
        if not decay > 0:
            return replace(
                judgement,
                state=VerdictState.HEALTHY,
                since=None,
                noticed=None,
                summary="The train data is fitted and held-out data is near chance, and without weight decay nothing "
                "drives the weights towards a rule.",
            )
        return replace(judgement, since=_first_fitted(train))


def _moves(run: RunFacts) -> Sign:
    ratio = run.layers("update.ratio")
    if not ratio:
        raise Unmeasured(run.why_missing("update.ratio"))
    return Sign(ratio.largest(), _MOVES, ABOVE, _BANK, "each step still changes the weights, by {value} of their size",
                release=_MOVES / 2, reliability=0.4)


def _first_fitted(train: Series) -> int:
    """Return the step from which on the train data has been fitted, but for single points."""
    smooth = running_median(train.value, 3)
    below = np.flatnonzero(smooth < _FITTED - 0.1)
    after = below[-1] + 1 if len(below) else 0
    reached = np.flatnonzero(train.value[after:] >= _FITTED)
    return int(train.step[after + (reached[0] if len(reached) else 0)])
