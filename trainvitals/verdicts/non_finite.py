"""NaN or Inf: the run has left the numbers, where first, and whether it came back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from trainvitals.schema import Advice, Evidence, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured

_IEEE = "IEEE 754-2019, section 6 (infinities and NaN)"
_SCALARS = ("loss.train", "loss.heldout")
_VECTORS = ("weights.norm.value", "grad.norm", "update.ratio")


class _Found(NamedTuple):
    metric: str
    key: str  # layer, if it was seen by layer
    first: int  # step
    last: int
    is_now: bool  # at the newest measurement too
    value: float


class NonFinite(Condition):
    """A loss, weight or gradient is NaN or Inf."""

    id = "non_finite"
    title = "NaN or Inf"
    says = "A number has overflowed or was never defined; from there on it spreads through everything it touches."
    reads = (*_SCALARS, *_VECTORS, "first_bad")
    source = _IEEE
    follows = ("step_too_large", "attention_logit_growth")
    precedence = 0
    advice = (
        Advice("Go back to the last checkpoint before it and lower the learning rate, or warm it up.",
               "Gilmer et al. 2022, A Loss Curvature Perspective on Training Instability in Deep Learning"),
        Advice("Look at the batch of that step for NaN, and for log, division or square root near 0 in the loss.",
               "by its meaning"),
        Advice("In half precision, scale the loss or compute the softmax in float32.",
               "Micikevicius et al. 2018, Mixed Precision Training, section 3.2"),
    )  # fmt: skip

    def judge(self, run: RunFacts) -> Judgement:
        """Return `alarm` when numbers are bad now, `watch` when they were and are good again."""
        logged = run.logged_losses
        if not any(len(run.raw(n).step) for n in (*_SCALARS, *logged)) and not run.layers("weights.norm.value"):
            raise Unmeasured(*(run.why_missing(name) for name in (*_SCALARS, "weights.norm.value")))
        found = sorted((*_in_scalars(run, (*_SCALARS, *logged)), *_in_vectors(run), *_counted(run)),
                       key=lambda f: (f.first, not f.key))  # fmt: skip
        if not found:
            return Judgement(VerdictState.HEALTHY, "All losses, weights and gradients that were measured are numbers.",
                             confidence=0.95)  # fmt: skip
        first, still = found[0], [f for f in found if f.is_now]
        evidence = tuple(Evidence(
            f.metric, f.last, f.value, "above", 0.0, _IEEE, "it is not a finite number", f.key, holds=f.is_now,
        ) for f in sorted(found, key=lambda f: not f.is_now))  # fmt: skip
        layer = next((f.key for f in found if f.key), "")
        back = Advice(f"Go back to a checkpoint from before step {first.first:,}, and lower the learning rate or "
                      f"warm it up.",
                      self.advice[0].source)  # fmt: skip
        advice = (back, *self.advice[1:])
        where = f"{first.metric} is not a finite number from step {first.first:,} on"
        where += f", first in {layer}" if layer else ""
        if not still:
            return Judgement(VerdictState.WATCH, f"{where}, and is again since: the run came back.", first.first,
                             first.first, 0.9, evidence, advice=advice)  # fmt: skip
        return Judgement(VerdictState.ALARM, f"{where}.", first.first, first.first, 0.99, evidence,
                         advice=advice)


def _in_scalars(run: RunFacts, names: tuple[str, ...]) -> Iterator[_Found]:
    for name in names:
        raw = run.raw(name)
        bad = np.flatnonzero(~np.isfinite(raw.value))
        if len(bad):
            yield _Found(name, "", int(raw.step[bad[0]]), int(raw.step[bad[-1]]), bool(bad[-1] == len(raw.step) - 1),
                         float(raw.value[bad[-1]]))  # fmt: skip


def _in_vectors(run: RunFacts) -> Iterator[_Found]:
    for name in _VECTORS:
        raw = run.raw_layers(name)
        is_bad = np.isnan(raw.value) & ~raw.absent if raw.value.size else np.zeros((0, 0), bool)
        is_bad |= np.isinf(raw.value) if raw.value.size else False
        rows = np.flatnonzero(is_bad.any(1)) if is_bad.size else []
        if len(rows):
            key = raw.keys[int(np.flatnonzero(is_bad[rows[0]])[0])]
            yield _Found(name, key, int(raw.step[rows[0]]), int(raw.step[rows[-1]]),
                         bool(rows[-1] == len(raw.step) - 1), float("nan"))  # fmt: skip


def _counted(run: RunFacts) -> Iterator[_Found]:
    """Yield what `first_bad` counted, with the name of the first layer."""
    counts = run.layers("first_bad")
    rows = np.flatnonzero((np.nan_to_num(counts.value) > 0).any(1)) if counts else []
    if len(rows):
        details = run.details("first_bad")
        name = next((str(v) for k, v in details.items() if k.startswith("first_")), "")
        first = int(min(details.get("step", counts.step[rows[0]]), counts.step[rows[0]]))
        yield _Found("first_bad", name, first, int(counts.step[rows[-1]]), bool(rows[-1] == len(counts) - 1),
                     float(np.nansum(counts.value[rows[-1]])))  # fmt: skip
