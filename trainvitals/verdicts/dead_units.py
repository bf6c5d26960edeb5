"""Dead units: a large part of a layer puts out 0 whatever it sees."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.loss_course import level_sign, loss_course, lost_sign
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Ints, Layers, Series
from trainvitals.verdicts.sign import ABOVE, BELOW, RANK_FELL, UNITS_DIED, Sign
from trainvitals.verdicts.weigh import weigh

_LYLE = "Lyle et al. 2023, Understanding plasticity in neural networks"
_LU = "Lu et al. 2020, Dying ReLU and Initialization: Theory and Numerical Examples"
_BANK = "measured on the bank of labelled runs, setting half"
_HALF = 0.5  # of a layer


class DeadUnits(Condition):
    """In the worst layer many units are dead, and more than at the start; what is left carries less."""

    id = "dead_units"
    title = "Dead units"
    says = "Units put out 0 on every sample: they pass no gradient, do not learn any more, and rarely come back."
    symptoms = (UNITS_DIED,)
    rests_on = ("units.dead",)
    reads = ("units.dead", "rank.effective")
    source = _LU
    follows = ("step_too_large", "attention_logit_growth")
    advice = (
        Advice("Lower the learning rate or warm it up: one large step is enough to kill a ReLU for good.", _LU),
        Advice("Use a non-linearity with a slope on both sides (leaky ReLU, GELU), or a normalisation layer before it.",
               "Maas, Hannun, Ng 2013, Rectifier Nonlinearities Improve Neural Network Acoustic Models"),
        Advice("Initialise dead units anew.",
               "Sokar et al. 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning, section 4"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when many units are dead and something else shows that it matters, `alarm` for two of these.

        A narrow layer may lose most of its units in the first steps and the rest do the work: the share alone says
        nothing.
        """
        layers = run.need_layers("units.dead", 4)
        worst = layers.column(_worst(layers.keys, [layers.column(key) for key in layers.keys]))
        many = Sign(worst, _HALF, ABOVE, _BANK, f"{{value:share}} of layer {worst.key} is dead", release=0.4,
                    kind="share", repeats=True, symptom=UNITS_DIED)  # fmt: skip
        more = Sign(worst.with_values(worst.value - worst.value[0]), 0.25, ABOVE, _BANK,
                    f"{{value:points}} more of layer {worst.key} is dead than at the start", release=0.15,
                    kind="share", quantity="rise of the share of dead units", repeats=True)  # fmt: skip
        shares = [many, more]
        matters = [
            Sign(worst, 0.85, ABOVE, _BANK, "next to nothing is left of the layer", release=0.75, reliability=0.5,
                 repeats=True),
            Sign(_late_rise(worst), 0.2, ABOVE, _BANK,
                 lambda at: _risen(worst, at), release=0.12, reliability=0.5,
                 quantity="rise of the share since a fifth of the run"),
            *_narrower(run, next((sign.since for sign in shares if sign.holds), None)),
            *_no_learning(run),
        ]  # fmt: skip
        found = weigh([*shares, *matters], watch=2, alarm=3, leading=shares)
        return found.judgement(
            _head(layers, worst),
            f"The worst, layer {worst.key}, has {figure(worst.last, 'share')} dead units",
            () if "rank.effective" in run.names else (run.why_missing("rank.effective"),),
        )


def _head(layers: Layers, worst: Series) -> str:
    """Return in words where units are dead: in how many layers more than half, and how many in the worst."""
    last = np.array([column.last if column else 0.0 for column in map(layers.column, layers.keys)])
    share, num = figure(worst.last, "share"), int(np.sum(last > _HALF))
    what = f"{share} put out 0 on every sample that was looked at"
    if num > 1:
        layers_ = f"{num} of {len(last)} layers"
        return f"In {layers_} more than half of the units are dead; in the worst, layer {worst.key}, {what}"
    return f"Units of layer {worst.key} are dead: {what}"


def _late_rise(share: Series) -> Series:
    """Return the rise since a fifth of the run so far, the first five measurements left out as settling."""
    return share.with_values(share.value - share.value[_fifth(len(share))])


def _fifth(num: int) -> Ints:
    """Return for each point the index of the one at a fifth of the run so far, (n,)."""
    index = np.arange(num)
    return np.minimum(np.maximum(index // 5, 5), index)


def _risen(share: Series, at: int) -> str:
    """Return in words how many died since a fifth of the run so far, as the chart shows it."""
    then = int(_fifth(len(share))[at])
    before = figure(float(share.value[then]), "share")
    return (f"their share has risen from {before} at step {share.step[then]:,} (a fifth of the run so far) to "
            f"{figure(float(share.value[at]), 'share')}, by {{value:points}}")  # fmt: skip


def _narrower(run: RunFacts, since: int | None) -> list[Sign]:
    """Return the sign that the features have lost rank since the units died."""
    rank = run.series("rank.effective")
    if since is None or not rank:
        return []
    end = max(1, int(np.searchsorted(rank.step, since, side="right")))
    before = float(rank.value[max(0, end - 3) : end].max())  # where they died between two measurements, the earlier
    fall = rank.since(since)
    words = f"of the rank {figure(before)} that the features had before, {{value:share}} is left"
    if since < rank.step[-1] / 5:  # every net goes down to the rank that its task needs, early
        return [Sign(fall.with_values(fall.value / before), 0.25, BELOW, _LYLE, words, release=0.3, patience=2,
                     reliability=0.5, quantity="effective rank over that before", symptom=RANK_FELL)]  # fmt: skip
    return [Sign(fall.with_values(fall.value / before), 0.75, BELOW, _LYLE, words, release=0.85, patience=2,
                 reliability=0.5, quantity="effective rank over that before", symptom=RANK_FELL)]  # fmt: skip


def _no_learning(run: RunFacts) -> list[Sign]:
    try:
        course = loss_course(run)
    except Unmeasured:
        return []
    return [lost_sign(course, 0.3, _BANK, 0.2), level_sign(course, 0.9, 0.8)]


def _worst(keys: tuple[str, ...], columns: list[Series]) -> str:
    """Return the layer with the largest share of dead units now."""
    return max(zip(keys, columns, strict=True), key=lambda pair: pair[1].last if pair[1] else -1.0)[0]
