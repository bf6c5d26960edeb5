"""Attention logits grow until each row attends to one place only, and the loss stops following."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.loss_course import level_sign, loss_course, lost_sign
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Series, stands_since
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_WORTSMAN = "Wortsman et al. 2024, Small-scale proxies for large-scale Transformer training instabilities, section 3.1"
_ZHAI = "Zhai et al. 2023, Stabilizing Transformer Training by Preventing Attention Entropy Collapse"
_BANK = "measured on the bank of labelled runs, setting half"
_MAX, _ENTROPY = "attention.max_logit", "attention.entropy"


class AttentionLogitGrowth(Condition):
    """The largest attention logit is large and has grown much; entropy falls, or progress is lost."""

    id = "attention_logit_growth"
    title = "Growing attention logits"
    says = "Attention becomes a hard choice of one token: its gradient vanishes, and training turns unstable."
    rests_on = (_MAX,)
    reads = (_MAX, _ENTROPY, "loss.train", "chance.loss")
    source = _WORTSMAN
    follows = ("step_too_large",)
    advice = (
        Advice("Normalise queries and keys (qk-norm).", _WORTSMAN),
        Advice("Lower the learning rate, or warm it up for longer.", _WORTSMAN),
        Advice("Decay the weights of the query and key projections, or reparametrise them (σReparam).", _ZHAI),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `alarm` when large logits go with lost entropy or lost progress."""
        logits = run.need_layers(_MAX, 4)
        largest = max((logits.column(key) for key in logits.keys), key=lambda s: s.last if s else -np.inf)
        start = max(float(np.median(largest.value[: max(1, len(largest) // 20)])), 1.0)
        large = Sign(largest, 100.0, ABOVE, _BANK, f"the largest attention logit of layer {largest.key} is {{value}}",
                     release=70.0,
                     reliability=0.6)  # fmt: skip
        grown = Sign(largest.with_values(largest.value / start), 20.0, ABOVE, _BANK,
                     "it has grown to {value} times its start", release=14.0, reliability=0.5,
                     quantity="largest logit over its start")  # fmt: skip
        signs = [large, grown, _hard_choice(run, largest.key), *_no_progress(run)]
        signs = [sign for sign in signs if sign.series]
        found = weigh(signs, watch=2, alarm=3, leading=[large])
        missing = [run.why_missing(name) for name in (_ENTROPY, "loss.train") if name not in run.names]
        return found.judgement(
            _head(largest),
            f"The attention logits stay moderate (largest {largest.last:.3g} in layer {largest.key})", missing,
        )  # fmt: skip


def _head(largest: Series) -> str:
    """Return what is found, in the past tense once the largest logit stands."""
    stands = stands_since(largest)
    if stands is None:
        return f"The attention logits of layer {largest.key} grow"
    return f"The attention logits of layer {largest.key} grew, and have stood at about {figure(largest.last)} since " \
           f"step {stands:,}"


def _hard_choice(run: RunFacts, key: str) -> Sign:
    """Return the sign that the rows' entropy has fallen to a small part of what it was."""
    entropy = run.layers(_ENTROPY)
    series = entropy.column(key) if key in entropy.keys else entropy.median()
    start = float(np.median(series.value[: max(1, len(series) // 20)])) if series else 1.0
    nothing = Series(_ENTROPY, series.step[:0], series.value[:0])
    share = series.with_values(series.value / start) if start > 0 else nothing
    return Sign(share, 0.2, BELOW, _ZHAI, "the entropy of attention is down to {value:share} of its start",
                release=0.3, reliability=0.5,
                quantity="entropy over its start")


def _no_progress(run: RunFacts) -> list[Sign]:
    try:
        course = loss_course(run)
    except Unmeasured:
        return []
    return [level_sign(course, 0.4, 0.3, more=", far from fitted"), lost_sign(course, 0.3, _BANK, 0.2)]
