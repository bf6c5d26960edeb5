"""Dead units: a large part of a layer puts out 0 whatever it sees."""

from __future__ import annotations

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_LYLE = "Lyle et al. 2023, Understanding plasticity in neural networks"
_LU = "Lu et al. 2020, Dying ReLU and Initialization: Theory and Numerical Examples"
_BANK = "measured on the bank of labelled runs, setting half"


class DeadUnits(Condition):
    """In the worst layer many units are dead, and more than at the start; what is left carries less."""

    id = "dead_units"
    title = "Dead units"
    says = "Units put out 0 on every sample: they pass no gradient, do not learn any more, and rarely come back."
    reads = ("units.dead", "rank.effective")
    source = _LU
    advice = (
        Advice("Lower the learning rate or warm it up: one large step is enough to kill a ReLU for good.", _LU),
        Advice("Use a non-linearity with a slope on both sides (leaky ReLU, GELU), or a normalisation layer before it.",
               "Maas, Hannun, Ng 2013, Rectifier Nonlinearities Improve Neural Network Acoustic Models"),
        Advice("Initialise dead units anew.",
               "Sokar et al. 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning, section 4"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` for one sign, `alarm` when the share is high and has grown, or the features lose rank."""
        layers = run.need_layers("units.dead", 4)
        worst = layers.column(_worst(layers.keys, [layers.column(key) for key in layers.keys]))
        grown = worst.with_values(worst.value - worst.value[0])
        level = Sign(worst, 0.5, ABOVE, _BANK, f"more than half of {worst.key} is dead", release=0.4, reliability=0.75)
        growth = Sign(
            grown, 0.25, ABOVE, _BANK, f"{worst.key} has lost a quarter of its units since the start", release=0.15,
        )  # fmt: skip
        rank = run.series("rank.effective")
        narrower = Sign(
            rank.with_values(rank.value / rank.value[: max(1, len(rank) // 2)].max()) if rank else rank, 0.5, BELOW,
            _LYLE, "the features vary in less than half as many directions", release=0.6, patience=2, reliability=0.4,
        )  # fmt: skip
        found = weigh([level, growth, narrower], watch=1, alarm=2, leading=[level, growth])
        return found.judgement(
            f"Units of {worst.key} are dead: {worst.last:.0%} of them put out 0 on every sample of the probe",
            f"The worst layer, {worst.key}, has {worst.last:.0%} dead units",
            () if rank else (run.why_missing("rank.effective"),),
        )


def _worst(keys: tuple[str, ...], columns: list[Series]) -> str:
    """Return the layer with the largest share of dead units now."""
    return max(zip(keys, columns, strict=True), key=lambda pair: pair[1].last if pair[1] else -1.0)[0]
