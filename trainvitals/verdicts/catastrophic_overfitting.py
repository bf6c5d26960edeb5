"""Catastrophic overfitting: training against a single-step attack has learned that attack and nothing more."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import ABOVE, Sign
from trainvitals.verdicts.weigh import weigh

_WONG = "Wong, Rice, Kolter 2020, Fast is better than free: Revisiting adversarial training, section 5.4"
_ANDRIUSHCHENKO = "Andriushchenko, Flammarion 2020, Understanding and Improving Fast Adversarial Training, section 4"
_LIN = "Lin et al. 2023, Eliminating Catastrophic Overfitting Via Abnormal Adversarial Examples Regularization"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
_GAP, _ABNORMAL, _BENT = 0.2, 0.05, 10.0


class CatastrophicOverfitting(Condition):
    """The accuracy under FGSM leaves the accuracy under PGD behind, losses fall under attack, the loss is bent.

    A gap alone is no alarm: a network that was never trained against attacks has one too, and no abnormal samples.
    """

    id = "catastrophic_overfitting"
    title = "Catastrophic overfitting"
    says = "The network withstands the one-step attack that it is trained with, and no stronger one."
    reads = ("adv.gap", "adv.abnormal", "adv.linearity")
    source = _WONG
    advice = (
        Advice("Go back to the weights before this began, and train on against PGD or with a random start.", _WONG),
        Advice("Penalise the curvature of the loss in the ball (GradAlign, ELLE).", _ANDRIUSHCHENKO),
        Advice("Lower the radius: below some radius it does not happen.", _ANDRIUSHCHENKO),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` for abnormal samples or two signs, `alarm` when the gap is there too."""
        gap, abnormal = run.need("adv.gap", 5), run.need("adv.abnormal", 5)
        signs = [
            Sign(
                gap,
                _GAP,
                ABOVE,
                f"{_WONG}; {_BANK}",
                "accuracy under FGSM is above that under PGD by this much",
                release=_GAP / 2,
                patience=2,
                reliability=0.6,
            ),
            Sign(
                abnormal,
                _ABNORMAL,
                ABOVE,
                f"{_LIN}; {_BANK}",
                "the loss of this share of samples falls under attack",
                release=_ABNORMAL / 2,
                patience=2,
                reliability=0.7,
            ),
            *_bent(run),
        ]
        found = weigh(signs, watch=2, alarm=3, leading=signs[1:2])
        missing = () if len(signs) == 3 else (run.why_missing("adv.linearity"),)
        return found.judgement(
            "Training against a single-step attack broke", "The single-step attack is no special case", missing
        )


def _bent(run: RunFacts) -> list[Sign]:
    linearity = run.series("adv.linearity")
    if len(linearity) < 5:
        return []
    smooth = np.maximum(running_median(linearity.value, 3), 1e-12)
    over = Series(linearity.name, linearity.step, smooth / np.minimum.accumulate(smooth))
    return [
        Sign(
            over,
            _BENT,
            ABOVE,
            f"{_ANDRIUSHCHENKO}; {_BANK}",
            "the loss is bent in the ball, this many times its least",
            release=_BENT / 2,
            patience=2,
            reliability=0.5,
        )
    ]
