"""From signs to a state: how many independent ones hold, for how long, and how sure that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainvitals.schema import Evidence, VerdictState
from trainvitals.verdicts.condition import Judgement
from trainvitals.verdicts.figures import figure, sentences, told
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

    def judgement(self, found: str, healthy: str, missing: Sequence[str] = ()) -> Judgement:
        """Return the judgement in words.

        Args:
            found: what is said when it is there, without a full stop; the first three that hold are added with figures.
            healthy: what is said when it is not there, likewise; what spoke nearest for it is added.
            missing: what was not measured and would have told more; it lowers the confidence.
        """
        present = self.state != VerdictState.HEALTHY
        trust = self.confidence * 0.9 ** len(missing)
        return Judgement(
            state=self.state, summary=sentences(found, told(self.evidence)) if present else _nearest(healthy,
                                                                                                     self.evidence[:2]),
            since=self.since, noticed=self.noticed, confidence=round(trust, 3), evidence=self.evidence,
            missing=tuple(missing), head=f"{found}." if present else "",
        )  # fmt: skip


def _nearest(head: str, evidence: Sequence[Evidence]) -> str:
    """Return the sentence of health, with the numbers that come nearest to saying otherwise."""
    parts = [_short_of(e) for e in evidence]
    return f"{head}: {'; '.join(parts)}." if parts else f"{head}."


def _short_of(e: Evidence) -> str:
    if e.holds:
        return f"at step {e.step:,} {e.sentence or e.words}"
    what = f"{e.quantity or e.metric}{f' of {e.key}' if e.key and not e.quantity else ''}"
    return f"{what} is {figure(e.value)} at step {e.step:,}, not {e.comparison} {figure(e.threshold)}"


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
    steps = _union(parts)
    num_held = np.zeros(len(steps), np.int64)
    for kind in _kinds(signs):
        num_held += np.any([sign.held_at(steps) for sign in kind], axis=0)
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


def _union(parts: Sequence[Ints]) -> Ints:
    """Return the steps that are in any of the parts, in order, each once."""
    if not parts:
        return np.empty(0, np.int64)
    steps = np.sort(np.concatenate(parts))
    return steps[np.append(True, steps[1:] > steps[:-1])]


def _kinds(signs: Sequence[Sign]) -> list[list[Sign]]:
    """Return the signs that count once together, in the order of the first of each."""
    kinds: dict[object, list[Sign]] = {}
    for sign in signs:
        kinds.setdefault(sign.kind or id(sign), []).append(sign)
    return list(kinds.values())


def _trust(signs: Sequence[Sign]) -> float:
    """Return 1 − Π(1 − reliability) over the kinds: independent signs that agree, at most 0.99."""
    doubt = float(np.prod([1 - max(sign.reliability for sign in kind) for kind in _kinds(signs)]))
    return round(min(0.99, 1 - doubt), 3)
