"""Edge of stability: the sharpness hovers at the optimiser's threshold. Worth knowing, no illness."""

from __future__ import annotations

import numpy as np

from trainvitals.schema import Advice
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.series import Series
from trainvitals.verdicts.sign import BELOW, Sign
from trainvitals.verdicts.weigh import weigh

_COHEN = "Cohen et al. 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability, section 3"
_BAND, _WIDER = 1.25, 1.6  # of the ratio, to either side: to enter and to leave
_PATIENCE = 4  # measurements in the band: one that is passed through takes fewer


class EdgeOfStability(Condition):
    """The ratio of sharpness and threshold stays near 1, or that of batch sharpness under SGD."""

    id = "edge_of_stability"
    title = "Edge of stability"
    says = "The curvature has grown until the step size only just bears it, and hovers there; the loss still falls."
    reads = ("stability.ratio", "stability.threshold", "batch_sharpness", "grad.successive.gradient")
    source = _COHEN
    is_informational = True
    advice = (
        Advice("Nothing has to be done: training goes on here. A smaller learning rate would end sharper.", _COHEN),
        Advice("Lower the learning rate towards the end if the loss is to settle.", "Cohen et al. 2021, section 4"),
    )

    def judge(self, run: RunFacts) -> Judgement:
        """Return `watch` while the ratio lies within a band round 1 for a while."""
        ratio = _ratio(run)
        distance = ratio.with_values(np.exp(np.abs(np.log(np.maximum(ratio.value, 1e-12)))))
        near = Sign(
            distance, _BAND, BELOW, _COHEN, "sharpness and threshold are apart by a factor of {value}",
            release=_WIDER, patience=_PATIENCE, reliability=0.85, starts="crossing",
            quantity="factor between sharpness and threshold",
        )  # fmt: skip
        bounce = Sign(
            run.series("grad.successive.gradient"), 0.0, BELOW, "Xing et al. 2018, A Walk with SGD",
            "successive gradients point against each other, with a cosine of {value}", reliability=0.4,
        )  # fmt: skip
        found = weigh([near, bounce], watch=1, alarm=99, leading=[near])
        return found.judgement(
            f"The sharpness hovers at its threshold, {ratio.last:.2f} times that now",
            f"The sharpness is not at its threshold, {ratio.last:.2f} times that now",
        )


def _ratio(run: RunFacts) -> Series:
    """Return the ratio that hovers at 1: of batch sharpness under plain SGD where it was measured, else of λmax."""
    batch, threshold = run.series("batch_sharpness"), run.series("stability.threshold")
    full, optimizer = run.series("stability.ratio"), run.optimizer
    is_plain = optimizer.get("class") == "SGD" and not optimizer.get("momentum")
    if is_plain and len(batch) >= _PATIENCE and threshold:
        level = threshold.at(batch.step)
        kept = np.isfinite(level) & (level > 0)
        of_batches = Series(batch.name, batch.step[kept], batch.value[kept] / level[kept])
        if len(of_batches) > len(full) or (full and full.last < 1 / _WIDER):
            return of_batches
    return run.need("stability.ratio", _PATIENCE)
