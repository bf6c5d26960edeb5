"""Softmax collapse: losses round to exactly 0, so that samples stop teaching before the net generalises."""

from __future__ import annotations

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.figures import figure
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.sign import ABOVE, WEIGHTS_GREW, Sign
from trainvitals.verdicts.weigh import weigh
from trainvitals.verdicts.weight_course import largest_jump, total_norm

_PRIETO = "Prieto et al. 2025, Grokking at the Edge of Numerical Stability"
_BANK = "measured on the bank of labelled runs, setting half"


class SoftmaxCollapse(Condition):
    """Many train losses are exactly 0, while the held-out data is far from learned or the weights only grow."""

    id = "softmax_collapse"
    title = "Softmax collapse"
    says = "The logits have grown until rounding makes losses exactly 0: these samples give no gradient any more."
    rests_on = ("softmax_collapse",)
    reads = ("softmax_collapse", "accuracy.train", "accuracy.heldout", "gap.accuracy", "weights.norm.value", "grad.nlm")
    source = _PRIETO
    follows = ("weight_norm_growth",)
    advice = (
        Advice("Use weight decay, or remove from the gradient what only scales the weights (⊥Grad).",
               f"{_PRIETO}, section 5"),
        Advice("Compute the softmax in float64, or use StableMax.", f"{_PRIETO}, section 4"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `alarm` when a good part of the losses is 0 and something else shows that it matters.

        Classes that lie far apart are told apart so surely within a few steps, and nothing is lost by it.
        """
        zero = run.need("softmax_collapse", 4)
        many = Sign(zero, 0.1, ABOVE, _BANK, "{value:share} of the train losses are exactly 0", release=0.05,
                    reliability=0.75)  # fmt: skip
        gap, norm = run.series("gap.accuracy"), total_norm(run)
        behind = Sign(gap.with_values(-gap.value), 0.3, ABOVE, _BANK,
                      "the held-out accuracy is {value:points} below the train accuracy",
                      release=0.2, reliability=0.6, quantity="train less held-out accuracy")  # fmt: skip
        grown = Sign(norm.with_values(norm.value / norm.value[0]) if norm else norm, 3.0, ABOVE, _BANK,
                     "the weights are {value} times their size at the start", release=2.5, reliability=0.5,
                     quantity="weights over their start", symptom=WEIGHTS_GREW)  # fmt: skip
        thrown = Sign(largest_jump(run), 2.0, ABOVE, _BANK, "the weights grew {value} times in one jump", patience=1)
        along = run.layers("grad.nlm").median()
        scaling = Sign(along, 0.3, ABOVE, f"{_PRIETO}, section 4.2",
                       "the gradient does little more than scale the weights, with a cosine of {value} to them",
                       release=0.2, reliability=0.6,
                       quantity="cosine of descent and weights, median of the tensors")  # fmt: skip
        found = weigh([many, behind, grown, scaling], watch=2, alarm=2, leading=[many], against=[thrown])
        beside = (("gap.accuracy", gap), ("weights.norm.value", norm))
        missing = [run.why_missing(name) for name, series in beside if not series]
        return found.judgement(
            "The softmax has collapsed",
            f"{figure(zero.last, 'share')} of the train losses are exactly 0", missing,
        )  # fmt: skip
