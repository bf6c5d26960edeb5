"""Gradient conflict: classes (or groups) pull against each other, and the loss stays where they balance.

Legend: n points, C classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainvitals.schema import Advice, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.loss_course import loss_course
from trainvitals.verdicts.plateau import stands_still
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured
from trainvitals.verdicts.sign import ABOVE, BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_YU = "Yu et al. 2020, Gradient Surgery for Multi-Task Learning, section 2"
_SANKARARAMAN = "Sankararaman et al. 2020, The Impact of Neural Network Overparameterization on Gradient Confusion"
_BANK = "measured on the bank of runs, half for thresholds (benchmarks/results/verdicts.md)"
_OPPOSED, _PULL, _STUCK = -0.6, 0.6, 0.15


class GradientConflict(Condition):
    """Most classes have another class whose gradient opposes theirs, and the train loss no longer falls, far from 0.

    Gradients of C classes that balance have a mean cosine of −1/(C − 1): of two classes they always oppose, so two
    classes say nothing. Opposed gradients while the loss falls are how classes are told apart.
    """

    id = "gradient_conflict"
    title = "Gradient conflict"
    says = "What helps some samples harms others as much, so that training stands still."
    reads = (
        "grad.per_class.min_cosine",
        "grad.per_class.norm",
        "grad.per_group.min_cosine",
        "grad.per_group.norm",
        "loss.train",
        "chance.loss",
    )
    source = _YU
    advice = (
        Advice(
            "Look for samples that are alike and carry different labels, and tell them apart in the inputs.",
            _SANKARARAMAN,
        ),
        Advice("Project conflicting gradients on each other's normal plane, or weight the tasks.", _YU),
        Advice("Widen the network: gradients of wide networks conflict less.", _SANKARARAMAN),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` when gradients oppose and one more sign holds, `alarm` when they pull and nothing moves."""
        course = loss_course(run)
        opposed, pull = _opposed(run)
        stuck = Sign(
            course.loss.with_values(np.where(stands_still(course.smooth), course.level, 0.0)),
            _STUCK,
            ABOVE,
            _BANK,
            "the train loss stands still at {value:share} of that of guessing",
            release=_STUCK / 2,
            reliability=0.5,
        )
        found = weigh([opposed, pull, stuck], watch=2, alarm=3, leading=[opposed])
        if found.state != VerdictState.HEALTHY and not opposed.holds:
            found = weigh([opposed], watch=2)
        judgement = found.judgement("Classes pull against each other", "No classes hold each other up")
        if judgement.since is None or not pull.holds or pull.entered is None:
            return judgement
        began = int(pull.series.step[max(pull.entered - pull.patience, 0)])  # the last point before it was entered
        return replace(judgement, since=min(max(judgement.since, began), judgement.noticed or began))


def _opposed(run: RunFacts) -> tuple[Sign, Sign]:
    """Return the signs of opposed gradients and of their size: of classes, or of groups where there are no classes."""
    for kind in ("per_class", "per_group"):
        cosines, norms = run.layers(f"grad.{kind}.min_cosine"), run.layers(f"grad.{kind}.norm").median()
        if len(cosines) >= 5 and len(norms) >= 5 and len(cosines.keys) > 2:
            opposed = Sign(
                cosines.median(),
                _OPPOSED,
                BELOW,
                f"{_YU}; {_BANK}",
                f"the median {kind[4:]} has another one whose gradient opposes its own, with a cosine of {{value}}",
                release=_OPPOSED + 0.1,
                reliability=0.6,
            )
            size = norms.with_values(norms.value / np.maximum.accumulate(np.maximum(norms.value, 1e-30)))
            pull = Sign(
                size,
                _PULL,
                ABOVE,
                _BANK,
                "these gradients are still {value:share} as large as they ever were",
                release=_PULL - 0.1,
                patience=2,
                reliability=0.5,
            )
            return opposed, pull
    raise Unmeasured(run.why_missing("grad.per_class.min_cosine") + " (of three classes or more)")
