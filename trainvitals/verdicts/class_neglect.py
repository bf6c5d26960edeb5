"""Class neglect: most classes (or groups) are learned, and one is left behind.

Legend: n points, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Floats, Layers, Series
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_FRANCAZI = "Francazi, Baity-Jesi, Lucchi 2023, A Theoretical Analysis of the Learning Dynamics under Class Imbalance"
_SAGAWA = "Sagawa et al. 2020, Distributionally Robust Neural Networks for Group Shifts, section 3"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
_LEFT, _LEARNED = 0.4, 0.5
_NAMED = 5  # others that are left behind
_WHERE = {"heldout": "held-out", "train": "train"}
_PLACES = (("per_class", "heldout"), ("per_class", "train"), ("per_group", "heldout"), ("per_group", "train"))


class ClassNeglect(Condition):
    """The recall of the worst class stays under two fifths of the median class's, when that one is learned.

    Recall is the accuracy on the samples of a class. Early in training every network prefers some classes: until the
    median class is at half of what it can reach above chance nothing is said.
    """

    id = "class_neglect"
    title = "A class is neglected"
    says = "Overall the numbers look good, and one class (or group) is hardly learned at all."
    reads = tuple(f"{kind}.{what}_{where}" for kind, where in _PLACES for what in ("accuracy", "loss"))
    source = f"{_FRANCAZI}; {_SAGAWA}"
    follows = ("step_too_large", "dead_units", "representation_collapse")
    advice = (
        Advice(
            "Draw batches with the classes in equal parts, or give each class's gradient the same weight.", _FRANCAZI
        ),
        Advice("Train on the worst group (group DRO) with strong decay or early stopping.", _SAGAWA),
        Advice("Collect more of that class: few samples are learned by heart and not understood.", _SAGAWA),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when one metric shows it, `alarm` when recall and loss, or two probes, agree."""
        signs = list(_signs(run))
        if not signs:
            raise Unmeasured(run.why_missing("per_class.accuracy_heldout"))
        recalls = [sign for sign in signs if ".accuracy_" in sign.series.name]
        found = weigh(signs, watch=2 if len(signs) > 1 else 1, alarm=2, leading=recalls)
        holding = next((sign for sign in recalls if sign.holds), None)
        if holding is None:
            return found.judgement("A class is left behind", "No class is left behind")
        kind, key = holding.series.name.split(".")[0][4:], holding.series.key
        first = _never_learned(run.layers(holding.series.name), key, run.chance_accuracy or 0.0)
        said = _left_behind(first, kind) + _others(run.layers(holding.series.name), key, kind)
        judgement = found.judgement(f"{kind.capitalize()} {key} {said}", "No class is left behind")
        judgement = replace(judgement, title=f"{kind.capitalize()} {key} is neglected")
        return judgement if first is None or judgement.since is None else replace(judgement, since=first[0])


def _never_learned(recall: Layers, key: str, chance: float) -> tuple[int, float] | None:
    """Return since when the median class is learned, and the largest recall of one that never had a share of that."""
    column = recall.column(key)
    most = float(column.value.max())
    if most >= _LEFT * float(np.nanmedian(recall.value[-1])):
        return None
    parted = np.flatnonzero(_is_learned(recall, chance))
    return (int(recall.step[parted[0]]), most) if len(parted) else None


def _is_learned(recall: Layers, chance: float) -> NDArray[np.bool_]:
    """Return whether the median class is half way from chance to 1, (n,)."""
    return np.nanmedian(recall.value, axis=1) > chance + _LEARNED * (1 - chance)


def _others(recall: Layers, key: str, kind: str) -> str:
    """Return which others are now below the same share of the median one, if there are any."""
    low = recall.value[-1] < _LEFT * np.nanmedian(recall.value[-1])
    named = [other for other, is_low in zip(recall.keys, low, strict=True) if is_low and other != key]
    if not named:
        return ""
    return f"; below {figure(_LEFT, 'share')} of the median {kind} now too: {', '.join(named[:_NAMED])}" + \
        ", …" * (len(named) > _NAMED)


def _left_behind(first: tuple[int, float] | None, kind: str) -> str:
    if first is None:
        return "is left behind"
    most = "always 0 %" if first[1] == 0 else f"never above {figure(first[1], 'share')}"
    return f"was never learned: its accuracy was {most}, while the median {kind} was learned from step " \
           f"{first[0]:,} on"


def _signs(run: RunFacts) -> Iterator[Sign]:
    chance = run.chance_accuracy or 0.0
    for kind, where in _PLACES:
        recall = run.layers(f"{kind}.accuracy_{where}")
        if len(recall) < 5 or len(recall.keys) < 2:
            continue
        ratio, key = _worst(recall, chance)
        yield Sign(
            Series(recall.name, recall.step, ratio, key),
            _LEFT,
            BELOW,
            f"{_SAGAWA}; {_BANK}",
            partial(_in_words, recall, key, kind[4:], _WHERE[where]),
            release=_LEFT + 0.1,
            reliability=0.6,
            raw=_as_recorded(recall, key),
            smoothed="median of the last 3 measurements",
            quantity=f"accuracy on {_WHERE[where]} samples of {kind[4:]} {key} over the median {kind[4:]}'s",
        )
        loss = run.layers(f"{kind}.loss_{where}")
        if len(loss) >= 5 and key in loss.keys and run.chance_loss:
            yield _costly(loss, key, f"{_WHERE[where]} samples of {kind[4:]} {key}", run.chance_loss)


def _in_words(recall: Layers, key: str, kind: str, where: str, at: int) -> str:
    own, median = recall.value[at, recall.keys.index(key)], float(np.nanmedian(recall.value[at]))
    return (
        f"the accuracy on {where} samples of {kind} {key} is {figure(float(own), 'share')}, that of the median {kind} "
        f"{figure(median, 'share')}: {{value:share}} of it"
    )


def _as_recorded(recall: Layers, key: str) -> Floats:
    """Return the accuracy of a class over the median one's as they were recorded, (n,)."""
    own, median = recall.value[:, recall.keys.index(key)], np.nanmedian(recall.value, axis=1)
    return np.nan_to_num(own, nan=1.0) / np.maximum(median, 1e-9)


def _worst(recall: Layers, chance: float) -> tuple[np.ndarray, str]:
    """Return the recall of the class that ends worst over the median recall (n,), 1 while that is low; its name."""
    last = np.nanmean(recall.value[-3:], axis=0)
    column = int(np.nanargmin(last))
    smooth = running_median(np.nan_to_num(recall.value[:, column], nan=1.0), 3)
    median = np.nanmedian(recall.value, axis=1)
    return np.where(_is_learned(recall, chance), smooth / np.maximum(median, 1e-9), 1.0), recall.keys[column]


def _costly(loss: Layers, key: str, samples: str, chance: float) -> Sign:
    column, median = loss.column(key), loss.median()
    return Sign(
        column,
        np.maximum(chance, 1.5 * median.at(column.step)),
        ABOVE,
        f"chance, and one and a half times the median class's; {_FRANCAZI}",
        f"the loss on {samples} is {{value}}, more than that of a guess",
        release=0.8 * np.maximum(chance, median.at(column.step)),
        reliability=0.6,
    )
