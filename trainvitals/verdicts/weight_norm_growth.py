"""Weight norms grow out of proportion: all of them without an end in sight, or one layer beside the others."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Layers, Series, stands_since
from trainvitals.verdicts.sign import ABOVE, WEIGHTS_GREW, Sign
from trainvitals.verdicts.weigh import weigh
from trainvitals.verdicts.weight_course import large_tensors, largest_jump, total_norm

_HOFFER = "Hoffer, Hubara, Soudry 2017, Train longer, generalize better: healthy distances grow like log t"
_IGLEWICZ = "Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers, section 3.3"
_BANK = "measured on the bank of labelled runs, setting half"
_MIN_POINTS = 8
_SMALL_WEIGHT = 0.01  # half of what GPT-2 starts with, below the usual start of layers with up to 3,000 inputs


class WeightNormGrowth(Condition):
    """The weights are several times as large as at the start and still growing, or one tensor stands out."""

    id = "weight_norm_growth"
    title = "Weight norm growth"
    says = "Weights grow and grow: steps become small beside them, logits overconfident, numbers large."
    symptoms = (WEIGHTS_GREW,)
    reads = ("weights.norm.value", "weights.norm.outlier", "logit.z.largest", "logit.scale.largest")
    source = "Neyshabur et al. 2017, Exploring Generalization in Deep Learning"
    follows = ("step_too_large",)
    advice = (
        Advice("Use (decoupled) weight decay.", "Loshchilov, Hutter 2019, Decoupled Weight Decay Regularization"),
        Advice("Lower the learning rate once the train data is fitted, or stop there.", _HOFFER),
        Advice("Cap the norm of the layer that stands out, or normalise it.",
               "Salimans, Kingma 2016, Weight Normalization"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `alarm` when the growth is large and shows no plateau, in all weights or in one tensor."""
        norm = total_norm(run)
        if len(norm) < _MIN_POINTS:
            raise Unmeasured(run.why_missing("weights.norm.value", len(norm), _MIN_POINTS))
        grown = norm.with_values(norm.value / _usual_start(run, float(norm.value[0])))
        odd = _odd_one(large_tensors(run))
        beside = f"growth of {odd.key} over that of the middle tensor"
        large = Sign(grown, 5.0, ABOVE, _BANK, "all weights together are {value} times their size at the start",
                     release=4.0, reliability=0.6, kind="size", quantity="weights over their start",
                     symptom=WEIGHTS_GREW)  # fmt: skip
        alone = Sign(odd, 5.0, ABOVE, _BANK, f"{odd.key} has grown {{value}} times as much as the middle tensor",
                     release=4.0,
                     reliability=0.6, kind="size", quantity=beside)  # fmt: skip
        late = Sign(_late(odd), 3.0, ABOVE, _BANK,
                    f"since a fifth of the run {odd.key} has grown {{value}} times as much as the middle tensor",
                    release=2.4, reliability=0.5, kind="size",
                    quantity=f"{beside}, since a fifth of the run")  # fmt: skip
        more = [
            Sign(grown, 10.0, ABOVE, _BANK, "it is more than ten times", release=8.0, reliability=0.5, repeats=True,
                 kind="much", quantity="weights over their start"),
            Sign(odd, 10.0, ABOVE, _BANK, f"{odd.key} more than ten times as much", release=8.0, reliability=0.5,
                 repeats=True,
                 kind="much", quantity=beside),
            Sign(_pace(norm), 0.3, ABOVE, _HOFFER,
                 "the weights go on growing with the power {value} of the steps, where 1 is steady growth",
                 release=0.2, reliability=0.6, kind="onward", quantity="power of the steps with which they grow"),
            Sign(_pace(odd), 0.3, ABOVE, _HOFFER, f"{odd.key} goes on growing with the power {{value}} of the steps",
                 release=0.2, reliability=0.6, kind="onward",
                 quantity="power of the steps with which it grows"),
            Sign(_outlier(run, odd.key), 3.5, ABOVE, _IGLEWICZ,
                 f"the growth of {odd.key} is an outlier by {{value}} robust deviations", release=3.0,
                 reliability=0.5),
            Sign(run.series("logit.z.largest") or run.series("logit.scale.largest"), 50.0, ABOVE, _BANK,
                 "the largest logit is {value}", release=35.0, reliability=0.4),
        ]  # fmt: skip
        thrown = Sign(largest_jump(run), 2.0, ABOVE, _BANK, "the weights grew {value} times in one jump", patience=1)
        found = weigh([large, alone, late, *more], watch=2, alarm=2, leading=[large, alone, late], against=[thrown])
        return found.judgement(
            _head(odd, norm, alone.holds or late.holds),
            f"The weights are {grown.last:.2g} times their size at the start",
        )


def _head(odd: Series, norm: Series, is_one: bool) -> str:
    """Return what is found, in the past tense once the weights stand."""
    stands = stands_since(odd if is_one else norm)
    what = odd.key if is_one else "The weights"
    if stands is not None:
        return f"{what} grew out of proportion, and {'has' if is_one else 'have'} stood since step {stands:,}"
    return f"{what} grow{'s' * is_one} out of proportion"


def _usual_start(run: RunFacts, start: float) -> float:
    """Return the norm at the start, or that of weights of size 0.01 if it was smaller: they have to grow to learn."""
    num = (run.meta.get("model") or {}).get("num_trainable", 0)
    return max(start, _SMALL_WEIGHT * float(num) ** 0.5)


def _odd_one(layers: Layers) -> Series:
    """Return the growth of the tensor that grew most beside the median, or 1; no points for fewer than 4 tensors.

    Where weight decay shrinks the others, one that stays as it is has not grown.
    """
    if len(layers.keys) < 4:
        return Series(layers.name, layers.step[:0], np.empty(0))
    finite = np.isfinite(layers.value).all(1)
    growth = layers.value[finite] / layers.value[0]
    best = int(np.argmax(growth[-1]))
    beside = np.maximum(np.median(growth, axis=1), 1.0)
    return Series(layers.name, layers.step[finite], growth[:, best] / beside, layers.keys[best])


def _late(odd: Series) -> Series:
    """Return the growth beside the others since a fifth of the run so far; the first five measurements settle."""
    index = np.arange(len(odd))
    return odd.with_values(odd.value / odd.value[np.minimum(np.maximum(index // 5, 5), index)]) if odd else odd


def _outlier(run: RunFacts, key: str) -> Series:
    scores = run.layers("weights.norm.outlier")
    return scores.column(key) if key in scores.keys else Series(scores.name, scores.step[:0], np.empty(0))


def _pace(norm: Series) -> Series:
    """Return log(‖θ(t)‖/‖θ(t/2)‖)/log 2: the power of t with which the weights grew over the last doubling.

    log t gives a power that falls to 0, a random walk away from small weights 1/2, constant velocity 1.
    """
    if not norm:
        return norm
    half = norm.at((norm.step + norm.step[0]) // 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.log2(norm.value / half)
    return norm.with_values(np.where(np.isfinite(power) & (np.arange(len(norm)) >= 4), power, 0.0))
