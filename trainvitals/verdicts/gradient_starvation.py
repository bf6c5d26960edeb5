"""Gradient starvation: one feature explains the data, the gradient is gone, and another feature was hardly learned.

Legend: n points, K named features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Floats, Layers
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_PEZESHKI = "Pezeshki et al. 2021, Gradient Starvation: A Learning Proclivity in Neural Networks, sections 2 and 3"
_SHAH = "Shah et al. 2020, The Pitfalls of Simplicity Bias in Neural Networks, section 4"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
_FITTED, _SHARE, _TELLS = 0.95, 0.2, 0.05


class GradientStarvation(Condition):
    """A feature that tells the classes apart keeps a small part of the margin that the strongest one has.

    A feature counts only where it tells something alone: accuracy above chance by more than 0.05 at the end.
    """

    id = "gradient_starvation"
    title = "Gradient starvation"
    says = "One feature explains the train data, so that others that would help are no longer learned."
    reads = (
        "feature.response.margin_alone",
        "feature.response.accuracy_alone",
        "feature.response.accuracy_flipped",
        "accuracy.train",
        "chance.accuracy",
    )
    source = _PEZESHKI
    advice = (
        Advice("Penalise the size of the outputs in place of weight decay (spectral decoupling).", _PEZESHKI),
        Advice("Add data in which the strong feature is absent or misleads.", _SHAH),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when the data is fitted and a feature starves, `alarm` when the strong one rules alone."""
        margin = run.need_layers("feature.response.margin_alone", 5)
        accuracy = run.need_layers("feature.response.accuracy_alone", 5)
        train, chance = run.need("accuracy.train"), run.chance_accuracy or 0.0
        weak = _weakest(margin, accuracy, chance)
        if weak is None:
            return Judgement(
                VerdictState.HEALTHY, "No two features tell the classes apart on their own.", confidence=0.5
            )
        share, name = weak
        starves = Sign(
            replace(margin.column(name), value=share),
            _SHARE,
            BELOW,
            f"{_PEZESHKI}; {_BANK}",
            f"the feature {name!r} gives {{value:share}} of the margin that the strongest one gives",
            release=2 * _SHARE,
            reliability=0.6,
        )
        fitted = Sign(
            train, _FITTED, ABOVE, _PEZESHKI, "the train data is fitted, with an accuracy of {value:share}",
            release=_FITTED - 0.1, reliability=0.5
        )
        signs = [starves, fitted, *_rules(run, margin, chance)]
        found = weigh(signs, watch=2, alarm=3, leading=[starves])
        if not fitted.holds:  # what the gradient still learns does not starve
            found = weigh([starves], watch=2)
        return found.judgement("A feature that would help is not learned", "No feature starves beside another")


def _weakest(margin: Layers, accuracy: Layers, chance: float) -> tuple[Floats, str] | None:
    """Return the share of the largest margin (n,) that the weakest telling feature has, and its name."""
    best = np.nanmax(margin.value, axis=1)
    telling = [key for key in margin.keys if np.nanmean(accuracy.column(key).value[-3:]) > chance + _TELLS]
    if len(telling) < 2:
        return None
    weakest = min(telling, key=lambda key: margin.column(key).last)
    column = margin.value[:, margin.keys.index(weakest)]
    return column / np.where(best > 0, best, np.nan), weakest


def _rules(run: RunFacts, margin: Layers, chance: float) -> list[Sign]:
    flipped = run.layers("feature.response.accuracy_flipped")
    if not flipped:
        return []
    strongest = margin.keys[int(np.nanargmax(margin.value[-1]))]
    return [
        Sign(
            flipped.column(strongest),
            0.5 * chance,
            BELOW,
            f"half of chance; {_SHAH}",
            f"with {strongest!r} turned in sign the accuracy is {{value:share}}, so that it decides alone",
            reliability=0.5,
        )
    ]
