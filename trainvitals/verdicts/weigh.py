"""From signs to a state: how many independent ones hold, for how long, and how sure that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Evidence, VerdictState
from trainvitals.verdicts.series import Ints
from trainvitals.verdicts.sign import Sign


@dataclass(frozen=True)
class Weighed:
    """What the signs say together."""

    state: VerdictState  # never UNKNOWN
    since: int | None
    noticed: int | None
    confidence: float
    evidence: tuple[Evidence, ...]  # those that hold first
    holding: tuple[Sign, ...]
    steps: Ints  # (n,) every step at which a sign has a point
    num_held: NDArray[np.int64]  # (n,) how many held then


def weigh(
    signs: Sequence[Sign], *, watch: int = 1, alarm: int = 2, leading: Sequence[Sign] = (), against: Sequence[Sign] = ()
) -> Weighed:
    """Return what independent signs say together at the last step.

    Args:
        signs: the pieces of evidence, the most telling first; `since` is the first's that holds.
        watch: how many must hold for `watch`.
        alarm: how many for `alarm`.
        leading: signs of which one must hold, whatever the others say; none if empty.
        against: signs that speak against the condition: while one holds it is healthy.
    """
    signs = [sign for sign in signs if sign.series]
    parts = [sign.series.step for sign in (*signs, *against) if sign.series]
    steps = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    num_held = sum((sign.held_at(steps).astype(np.int64) for sign in signs), np.zeros(len(steps), np.int64))
    allowed = np.ones(len(steps), bool)
    if leading:
        allowed &= np.any([sign.held_at(steps) for sign in leading], axis=0)
    for sign in against:
        allowed &= ~sign.held_at(steps)
    num_held = np.where(allowed, num_held, 0)
    present = num_held >= watch
    evidence = tuple(s.evidence() for s in sorted(signs, key=lambda s: not s.holds))
    if not len(steps) or not present[-1]:
        return Weighed(VerdictState.HEALTHY, None, None, _trust(signs), evidence, (), steps, num_held)
    holding = tuple(sign for sign in signs if sign.holds)
    free = np.flatnonzero(~present)
    noticed = int(steps[free[-1] + 1] if len(free) else steps[0])
    since = next(s for s in (sign.since for sign in (*(x for x in leading if x.holds), *holding)) if s is not None)
    state = VerdictState.ALARM if num_held[-1] >= alarm else VerdictState.WATCH
    return Weighed(state, min(since, noticed), noticed, _trust(holding), evidence, holding, steps, num_held)


def _trust(signs: Sequence[Sign]) -> float:
    """Return 1 − Π(1 − reliability): independent signs that agree, at most 0.99."""
    doubt = float(np.prod([1 - sign.reliability for sign in signs])) if signs else 1.0
    return round(min(0.99, 1 - doubt), 3)
