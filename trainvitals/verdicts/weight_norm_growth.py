"""Weight norms grow out of proportion: all of them without an end in sight, or one layer beside the others."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Layers, Series
from trainvitals.verdicts.sign import ABOVE, Sign
from trainvitals.verdicts.weigh import weigh
from trainvitals.verdicts.weight_course import large_tensors, total_norm

_HOFFER = "Hoffer, Hubara, Soudry 2017, Train longer, generalize better: healthy distances grow like log t"
_IGLEWICZ = "Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers, section 3.3"
_BANK = "measured on the bank of labelled runs, setting half"
_MIN_POINTS = 8


class WeightNormGrowth(Condition):
    """The weights are several times as large as at the start and still growing, or one tensor stands out."""

    id = "weight_norm_growth"
    title = "Weight norm growth"
    says = "Weights grow and grow: steps become small beside them, logits overconfident, numbers large."
    reads = ("weights.norm.value", "weights.norm.outlier", "logit.z.largest", "logit.scale.largest")
    source = "Neyshabur et al. 2017, Exploring Generalization in Deep Learning"
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
        grown = norm.with_values(norm.value / norm.value[0])
        layers = large_tensors(run)
        odd = _odd_one(layers, grown)
        large = Sign(grown, 3.0, ABOVE, _BANK, "all weights together have grown to several times their size",
                     release=2.5, reliability=0.6, kind="size")  # fmt: skip
        alone = Sign(odd, 3.0, ABOVE, _BANK, f"{odd.key} has grown several times more than the middle tensor",
                     release=2.5, reliability=0.6, kind="size")  # fmt: skip
        onward = Sign(_pace(norm), 0.3, ABOVE, _HOFFER, "doubling the steps still adds a third to the weights or more",
                      release=0.2, reliability=0.6)  # fmt: skip
        logits = run.series("logit.z.largest") or run.series("logit.scale.largest")
        huge = Sign(logits, 50.0, ABOVE, _BANK, "the logits are very large", release=35.0, reliability=0.4)
        found = weigh([large, alone, onward, huge], watch=2, alarm=2, leading=[large, alone])
        return found.judgement(
            f"The weights grow out of proportion ({grown.last:.2g} times their size at the start)",
            f"The weights are {grown.last:.2g} times their size at the start",
        )


def _odd_one(layers: Layers, all_weights: Series) -> Series:
    """Return the growth of the tensor that grew most over the median growth; no points for fewer than 4 tensors."""
    if len(layers.keys) < 4:
        return Series(layers.name, layers.step[:0], np.empty(0))
    growth = layers.value / layers.value[0]
    middle = np.maximum(np.nanmedian(growth, axis=1), 1e-12)
    best = int(np.nanargmax(growth[-1]))
    return Series(layers.name, layers.step, growth[:, best] / middle, layers.keys[best])


def _pace(norm: Series) -> Series:
    """Return log(‖θ(t)‖/‖θ(t/2)‖)/log 2: the power of t with which the weights grew over the last doubling.

    log t gives a power that falls to 0, a random walk away from small weights 1/2, constant velocity 1.
    """
    half = norm.at((norm.step + norm.step[0]) // 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.log2(norm.value / half)
    return norm.with_values(np.where(np.isfinite(power) & (np.arange(len(norm)) >= 4), power, 0.0))
