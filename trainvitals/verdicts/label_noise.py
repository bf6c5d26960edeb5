"""Wrong labels are being memorised: samples that the network saw through early are fitted later, and it costs.

Legend: n points, K samples of the train probe.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Layers, Series
from trainvitals.verdicts.sign import ABOVE, Sign
from trainvitals.verdicts.weigh import weigh

_PAUL = "Paul, Ganguli, Dziugaite 2021, Deep Learning on a Data Diet, section 4.2"
_ARPIT = "Arpit et al. 2017, A Closer Look at Memorization in Deep Networks, section 3"
_LIU = "Liu et al. 2020, Early-Learning Regularization Prevents Memorization of Noisy Labels, section 3"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
# EL2N is above 1 only where another class has more probability than the label: it is √2 where that one has all of it.
_AGAINST = 1.0
_SUSPECTS, _MEMORISED, _FALL, _FAR, _ORDER = 0.06, 0.5, 0.04, 0.1, 0.05
_SMOOTH = 5


class LabelNoise(Condition):
    """The held-out accuracy falls, and samples that the network stood against are fitted, or the order was odd.

    Early on the network stands against wrong labels and against some hard samples alike (EL2N above 1); then the
    train accuracy of noisy labels is below the held-out accuracy of clean ones. Later both kinds are fitted, and only
    the wrong labels cost held-out accuracy: without that fall nothing is said, so memory that does no harm is quiet.
    """

    id = "label_noise"
    title = "Wrong labels memorised"
    says = "Some train labels look wrong, and the network is learning them by heart."
    reads = ("el2n", "accuracy.train", "accuracy.heldout")
    source = f"{_ARPIT}; {_LIU}"
    advice = (
        Advice(
            "Look at the train samples with the largest EL2N at the step where this began, and put their labels "
            "right or leave them out.",
            _PAUL,
        ),
        Advice("Stop at the step where this began: clean labels are learned first.", _LIU),
        Advice(
            "Use a loss that wrong labels move less, or label smoothing.",
            "Zhang, Sabuncu 2018, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
        ),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when the held-out accuracy fell and one more sign holds, `alarm` for three."""
        train, heldout = run.need("accuracy.train"), run.need("accuracy.heldout")
        fell, far = _fell(heldout, _FALL), _fell(heldout, _FAR, repeats=True)
        fitted = _fitted(run.layers("el2n"))
        signs = [fell, *fitted, _odd_order(train, heldout), far]
        lost = _fell(train, _FAR)  # of the train accuracy: what is lost on both is no memory
        found = weigh(signs, watch=3 if far.holds else 2, alarm=3, leading=[fell], against=[lost])
        missing = () if fitted else (run.why_missing("el2n", len(run.layers("el2n")), 8),)
        judgement = found.judgement(
            "Wrong labels are being memorised", "Nothing says that wrong labels are being memorised", missing
        )
        if judgement.state == VerdictState.HEALTHY:
            return judgement
        since = _began(run.layers("el2n"), heldout, bool(fitted) and fitted[0].holds)
        return replace(judgement, since=since, advice=_at_step(since, self.advice))


def _at_step(since: int, advice: tuple[Advice, ...]) -> tuple[Advice, ...]:
    look = (
        f"Look at the train samples that the network contradicted at step {since:,} (the page on samples lists them by "
        "error norm, EL2N), and put their labels right or leave them out."
    )
    stop = f"Stop at step {since:,}, or go back to its weights: clean labels are learned first."
    return (Advice(look, _PAUL), Advice(stop, _LIU), *advice[2:])


def _began(el2n: Layers, heldout: Series, by_samples: bool) -> int:
    """Return when the share of samples that the network stood against began to fall, or else the held-out accuracy."""
    if by_samples:
        share = against(el2n).value
        return int(el2n.step[np.flatnonzero(share >= 0.85 * share.max())[-1]])
    smooth = running_median(heldout.value, _SMOOTH)
    return int(heldout.step[np.flatnonzero(smooth >= smooth.max())[-1]])


def against(el2n: Layers) -> Series:
    """Return the share of the samples whose label the network gives less probability than another class, (n,)."""
    return Series(el2n.name, el2n.step, running_median((el2n.value > _AGAINST).mean(1), 3))


def _fitted(el2n: Layers) -> list[Sign]:
    """Return which part of the samples that the network once stood against is fitted, if there were samples enough."""
    if len(el2n) < 8:
        return []
    share = against(el2n)
    most = np.maximum.accumulate(share.value)
    gone = np.where(most >= _SUSPECTS, 1 - share.value / np.maximum(most, 1e-9), 0.0)
    return [
        Sign(
            share.with_values(gone),
            _MEMORISED,
            ABOVE,
            f"{_PAUL}; {_BANK}",
            "of the train samples whose label the network contradicted, {value:share} are fitted by now",
            patience=2,
            reliability=0.6,
            quantity="share of the contradicted samples that is fitted",
        )
    ]


def _fell(heldout: Series, by: float, *, repeats: bool = False) -> Sign:
    smooth = running_median(heldout.value, _SMOOTH)
    return Sign(
        heldout.with_values(np.maximum.accumulate(smooth) - smooth),
        by,
        ABOVE,
        f"{_LIU}; {_BANK}",
        "the held-out accuracy stands {value:points} below its best",
        release=by / 2,
        reliability=0.5,
        quantity="best held-out accuracy so far less the present one",
        repeats=repeats,
    )


def _odd_order(train: Series, heldout: Series) -> Sign:
    """Return by how much the held-out accuracy was once above the train accuracy: so it is where labels are wrong.

    It holds from then on: the order turns round once they are memorised.
    """
    above = running_median(np.nan_to_num(heldout.value - train.at(heldout.step)), _SMOOTH)
    return Sign(
        heldout.with_values(np.maximum.accumulate(above)),
        _ORDER,
        ABOVE,
        f"{_ARPIT}; {_BANK}",
        "the held-out accuracy was {value:points} above the train accuracy, a mark of wrong train labels",
        reliability=0.5,
        quantity="largest lead of the held-out accuracy so far",
        once=True,
    )
