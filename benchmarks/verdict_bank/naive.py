"""What scripts do instead: one metric against one number, without noise, persistence or the run's own scale.

Each rule takes the level that is usual, or the one that the metric's name suggests; none was tuned on the bank, in
either direction. A rule that watches for an event fires once and for all; the others look at the last point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from verdict_bank.scoring import Answer

Read = Callable[[str], pd.DataFrame]  # a metric's points: step, key, value


@dataclass(frozen=True)
class Rule:
    """A metric compared with a level at each point: the largest (or smallest) over its keys."""

    words: str
    metric: str
    test: Callable[[np.ndarray], np.ndarray]  # values (n,) → whether the rule says yes at each
    over_keys: str = "max"
    is_event: bool = False

    def __call__(self, read: Read) -> Answer:
        """Return the rule's answer: since when it says yes without a break, or the first time for an event."""
        points = read(self.metric)
        values = points.groupby("step")["value"].agg(self.over_keys)
        if len(values) < 2:
            return Answer("unknown")
        yes = np.asarray(self.test(values.to_numpy(float)), bool)
        steps = values.index.to_numpy()
        if not yes.any() or not (self.is_event or yes[-1]):
            return Answer("healthy")
        at = int(np.argmax(yes)) if self.is_event else int(np.flatnonzero(~yes)[-1] + 1 if not yes.all() else 0)
        return Answer("alarm", int(steps[at]), int(steps[at]))


def _above(level: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values > level


def _below(level: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values < level


def _jumps(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.append(False, values[1:] > factor * values[:-1])


def _rises_in_a_row(num: int) -> Callable[[np.ndarray], np.ndarray]:
    def test(values: np.ndarray) -> np.ndarray:
        up = np.append(False, np.diff(values) > 0)
        return np.array([up[max(0, i - num + 1) : i + 1].sum() == num for i in range(len(up))])

    return test


def _falls_to(share: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values < share * np.maximum.accumulate(values)


RULES: dict[str, tuple[Rule, ...]] = {
    "overfitting": (
        Rule("gap of the loss above 0.3", "gap.loss", _above(0.3)),
        Rule("held-out loss rises 3 times in a row", "loss.heldout", _rises_in_a_row(3), is_event=True),
        Rule("OUI above 0.8", "oui", _above(0.8)),
    ),
    "underfitting": (
        Rule("train accuracy below 0.8", "accuracy.train", _below(0.8)),
        Rule("OUI below 0.6", "oui", _below(0.6)),
    ),
    "label_noise": (Rule("gap of the accuracy below −0.1", "gap.accuracy", _below(-0.1)),),
    "step_too_large": (Rule("train loss doubles", "loss.train", _jumps(2.0), is_event=True),),
    "step_too_small": (Rule("update ratio below 1e-3", "update.ratio", _below(1e-3), over_keys="median"),),
    "edge_of_stability": (Rule("λmax above its threshold", "stability.ratio", _above(1.0)),),
    "loss_spikes": (Rule("train loss rises by half", "loss.train", _jumps(1.5), is_event=True),),
    "dead_units": (Rule("dead share above 0.3", "units.dead", _above(0.3)),),
    "plasticity_loss": (Rule("effective rank halved", "rank.effective", _falls_to(0.5)),),
    "neural_collapse": (Rule("NC1 below 0.1", "nc1", _below(0.1)),),
    "representation_collapse": (Rule("effective rank halved", "rank.effective", _falls_to(0.5)),),
    "gradient_conflict": (Rule("mean cosine below 0", "grad.cosine", _below(0.0)),),
    "gradient_starvation": (
        Rule("accuracy from one feature below 0.8", "feature.response.accuracy_alone", _below(0.8), over_keys="min"),
    ),
    "class_neglect": (Rule("worst recall below 0.5", "per_class.accuracy_heldout", _below(0.5), over_keys="min"),),
    "weight_norm_growth": (Rule("a norm doubled", "weights.norm.growth", _above(2.0)),),
    "attention_logit_growth": (Rule("largest logit above 50", "attention.max_logit", _above(50.0)),),
    "softmax_collapse": (Rule("any loss exactly 0", "softmax_collapse", _above(0.0)),),
    "non_finite": (Rule("train loss NaN or Inf", "loss.train", lambda v: ~np.isfinite(v), is_event=True),),
    "grokking_possible": (Rule("gap of the accuracy below −0.5", "gap.accuracy", _below(-0.5)),),
    "catastrophic_overfitting": (Rule("FGSM above PGD by 0.1", "adv.gap", _above(0.1)),),
}
