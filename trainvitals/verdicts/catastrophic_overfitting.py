"""Catastrophic overfitting: training against a single-step attack has learned that attack and nothing more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_WONG = "Wong, Rice, Kolter 2020, Fast is better than free: Revisiting adversarial training, section 5.4"
_ANDRIUSHCHENKO = "Andriushchenko, Flammarion 2020, Understanding and Improving Fast Adversarial Training, section 4"
_LIN = "Lin et al. 2023, Eliminating Catastrophic Overfitting Via Abnormal Adversarial Examples Regularization"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
_GAP, _ABNORMAL, _SHARE, _LEARNED = 0.2, 0.05, 0.6, 0.4


class CatastrophicOverfitting(Condition):
    """The accuracy under FGSM leaves the accuracy under PGD behind, and losses fall under attack.

    A gap alone is no alarm: a network that was never trained against attacks has one too, where the accuracy under
    FGSM is low; in training that breaks it is high, and the accuracy under PGD is a small part of it.
    """

    id = "catastrophic_overfitting"
    title = "Catastrophic overfitting"
    says = "The network withstands the one-step attack that it is trained with, and no stronger one."
    reads = ("adv.gap", "adv.abnormal", "adv.robust.train")
    source = _WONG
    advice = (
        Advice("Go back to the weights before this began, and train on against PGD or with a random start.", _WONG),
        Advice("Penalise the curvature of the loss in the ball (GradAlign, ELLE).", _ANDRIUSHCHENKO),
        Advice("Lower the radius: below some radius it does not happen.", _ANDRIUSHCHENKO),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` for two signs, one of them the gap or abnormal samples, `alarm` for three."""
        gap, abnormal = run.need("adv.gap", 5), run.need("adv.abnormal", 5)
        signs = [
            Sign(
                gap.with_values(running_median(gap.value, 3)),
                _GAP,
                ABOVE,
                f"{_WONG}; {_BANK}",
                "the accuracy under the one-step attack (FGSM) is {value:points} above that under the stronger one "
                "(PGD)",
                release=_GAP / 2,
                patience=2,
                reliability=0.6,
            ),
            Sign(
                abnormal,
                _ABNORMAL,
                ABOVE,
                f"{_LIN}; {_BANK}",
                "under attack the loss of {value:share} of the samples falls in place of rising",
                release=_ABNORMAL / 2,
                patience=2,
                reliability=0.7,
            ),
            *_one_attack_only(run, gap),
        ]
        found = weigh(signs, watch=2, alarm=3, leading=signs[:2])
        missing = () if len(signs) == 3 else (run.why_missing("adv.robust.train"),)
        judgement = found.judgement(
            "Training against a one-step attack has broken", "The one-step attack is no special case", missing
        )
        if judgement.since is None:
            return judgement
        back = f"Go back to weights from before step {judgement.since:,}; train on against PGD or with a random start."
        return replace(judgement, advice=(Advice(back, _WONG), *self.advice[1:]))


def _one_attack_only(run: RunFacts, gap: Series) -> list[Sign]:
    """Return which part of the accuracy under FGSM is left under PGD, once that accuracy is worth speaking of."""
    pgd = run.series("adv.robust.train")
    if len(pgd) < 5:
        return []
    fgsm = pgd.value + gap.at(pgd.step)
    part = np.where(fgsm >= _LEARNED, pgd.value / np.maximum(fgsm, 1e-9), 1.0)
    return [
        Sign(
            pgd.with_values(np.nan_to_num(part, nan=1.0)),
            _SHARE,
            BELOW,
            f"{_ANDRIUSHCHENKO}; {_BANK}",
            "of the accuracy under the one-step attack {value:share} is left under the stronger one",
            release=_SHARE + 0.2,
            patience=2,
            reliability=0.5,
        )
    ]
