"""Loss of plasticity: what the net is asked to learn changes, and it no longer learns it as well as before."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.loss_course import loss_course
from trainvitals.verdicts.noise import running_median
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.series import Floats, Layers, Series
from trainvitals.verdicts.sign import ABOVE, BELOW, LOSS_HIGH, LOSS_LOST, RANK_FELL, UNITS_DIED, WEIGHTS_GREW, Sign
from trainvitals.verdicts.weigh import weigh
from trainvitals.verdicts.weight_course import total_norm

_DOHARE = "Dohare et al. 2024, Loss of Plasticity in Deep Continual Learning"
_LYLE = "Lyle et al. 2023, Understanding plasticity in neural networks"
_BANK = "measured on the bank of labelled runs, setting half"
_RECENT = 0.15  # of the run so far: what it reached lately is the lowest loss in there
_MIN_POINTS = 30


class PlasticityLoss(Condition):
    """The train loss no longer gets as low as it did, while units die, features lose rank and weights grow."""

    id = "plasticity_loss"
    title = "Loss of plasticity"
    says = "The net has become stiff: given something new to learn, it does worse than it did when it was young."
    symptoms = (LOSS_LOST, LOSS_HIGH)
    reads = ("loss.train", "the loss you log", "units.dead", "units.dormant", "rank.effective", "weights.norm.value")
    source = _DOHARE
    follows = ("step_too_large", "dead_units", "weight_norm_growth")
    advice = (
        Advice("Initialise a few little-used units anew at every step (continual backpropagation).", _DOHARE),
        Advice("Put LayerNorm before the non-linearities, and decay the weights.", f"{_LYLE}, section 5"),
        Advice("Pull the weights' spectrum towards its start.",
               "Lewandowski et al. 2024, Learning Continually by Spectral Regularization"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `alarm` when the loss reached has risen and at least two changes of the net go with it."""
        course = loss_course(run, _MIN_POINTS)
        worse = [
            Sign(series.with_values(risen_floor(series.value) / course.reference), 0.15, ABOVE, _BANK,
                 f"the lowest {series.name} of late is above the lowest ever by {{value:share}} of the loss of "
                 f"guessing", release=0.1, reliability=0.6, kind="loss",
                 quantity=f"rise of the lowest {series.name} of late over the loss of guessing", symptom=LOSS_LOST)
            for series in _training_losses(run, course.loss)
        ]  # fmt: skip
        inside, norm = _inside(run), total_norm(run)
        measured = [sign for sign in inside if sign.series]
        if len(measured) < 2:
            raise Unmeasured(*(run.why_missing(name) for name in self.reads[2:] if name not in run.names))
        thrown = Sign(norm.with_values(norm.value / norm.value[0]) if norm else norm, 10.0, ABOVE, _BANK,
                      "the weights are {value} times their size at the start")  # fmt: skip
        found = weigh([*worse, *measured], watch=3, alarm=3, leading=worse, against=[thrown])
        missing = [run.why_missing(sign.series.name) for sign in inside if not sign.series]
        return found.judgement(
            "The net has lost plasticity", "It still learns what it is given as well as before", missing
        )


def risen_floor(loss: Floats) -> Floats:
    """Return how far the lowest loss of late lies above the lowest ever, (n,): of the last 15 % of the points so far.

    New tasks raise the loss for a while and do not count, as long as it comes down again.
    """
    smooth = running_median(loss, 9)
    best = np.minimum.accumulate(smooth)
    risen = np.zeros(len(loss))
    for i in range(_MIN_POINTS - 1, len(loss)):
        risen[i] = smooth[int((1 - _RECENT) * i) : i + 1].min() - best[i]
    return risen


def _training_losses(run: RunFacts, probe: Series) -> list[Series]:
    """Return the logged training losses, which follow a change of the data; the fixed probe's without any."""
    return [s for s in map(run.series, run.logged_losses) if len(s) >= _MIN_POINTS] or [probe]


def _inside(run: RunFacts) -> list[Sign]:
    rank, norm = run.series("rank.effective"), total_norm(run)
    share = rank.with_values(running_median(rank.value, 3) / np.maximum.accumulate(rank.value)) if rank else rank
    return [
        *(Sign(_rise_of_worst(run.layers(name)), 0.2, ABOVE, _BANK,
               f"{{value:points}} more of the worst layer {state} than at the start", release=0.12,
               reliability=0.5, kind="units", quantity="rise of the share in the worst layer", symptom=UNITS_DIED)
          for name, state in (("units.dead", "is dead"), ("units.dormant", "is dormant"))),
        Sign(share, 0.5, BELOW, _LYLE, "the features have kept {value:share} of their largest rank", release=0.6,
             reliability=0.5,
             quantity="effective rank over its largest", symptom=RANK_FELL),
        Sign(norm.with_values(norm.value / norm.value[0]) if norm else norm, 2.0, ABOVE, _BANK,
             "the weights are {value} times their size at the start", release=1.7, reliability=0.4,
             quantity="weights over their start", symptom=WEIGHTS_GREW),
    ]  # fmt: skip


def _rise_of_worst(layers: Layers) -> Series:
    """Return how far the share of the worst layer has risen since the start."""
    largest = layers.largest()
    return largest.with_values(largest.value - largest.value[0]) if largest else largest
