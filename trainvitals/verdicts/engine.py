"""All conditions on one run: what `trainvitals.verdicts(run)` and `Run.verdicts()` return."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Protocol

from trainvitals.schema import Verdict, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement, conditions
from trainvitals.verdicts.consequences import covered, linked, root
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured

_TWICE = 2  # a value that is missing once may be back
_RANK = {VerdictState.ALARM: 0, VerdictState.WATCH: 1, VerdictState.HEALTHY: 2, VerdictState.UNKNOWN: 3}


class HasVerdicts(Protocol):
    """A recorded run, as `trainvitals.open_run` returns it."""

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts."""
        ...


def verdicts(run: HasVerdicts) -> list[Verdict]:
    """Return what is to be said of a run, one verdict a condition, the worst first.

    States: `healthy`; `watch`, some evidence, or something worth knowing; `alarm`, several independent pieces of
    evidence; `unknown`, and `missing` says what was not measured. Among equals the earliest comes
    first, and what probably follows from another stands right behind it.

    Example:
        >>> import tempfile, torch, trainvitals as tv
        >>> _ = torch.manual_seed(0)
        >>> model, x, y = torch.nn.Linear(2, 1), torch.randn(8, 2), torch.randn(8, 1)
        >>> optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.1), torch.nn.functional.mse_loss
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with tv.watch(model, optimizer, loss=loss, train=(x, y), store=folder, every=1) as run:
        ...         for _ in range(20):
        ...             optimizer.zero_grad(); loss(model(x), y).backward(); optimizer.step()
        ...     found = tv.verdicts(tv.open_run(run.path))
        >>> [v.condition for v in found if v.state == "alarm"]
        []
    """
    return run.verdicts()


def judge(facts: RunFacts, chosen: Iterable[Condition] | None = None) -> list[Verdict]:
    """Return one verdict for each of the conditions, by default all: the worst first, among equals the earliest.

    What probably follows from another stands right behind it, whatever its own state; see `consequences`.
    """
    asked = list(conditions() if chosen is None else chosen)
    by_id = {condition.id: condition for condition in asked}
    found = linked([_verdict(condition, facts) for condition in asked], by_id, facts.last_step)
    found = covered(found, by_id)
    verdict = {v.condition: v for v in found}
    roots = {v.condition: root(v, verdict) for v in found}
    worst: dict[str, int] = {}
    for v in found:
        first = roots[v.condition].condition
        worst[first] = min(worst.get(first, len(_RANK)), _RANK[v.state])

    def place(v: Verdict) -> tuple:
        first = roots[v.condition]
        return (
            worst[first.condition], first.is_informational, _began(first), by_id[first.condition].precedence,
            -first.confidence, first.condition, v is not first, _began(v), by_id[v.condition].precedence, v.condition,
        )  # fmt: skip

    return sorted(found, key=place)


def _began(v: Verdict) -> float:
    return math.inf if v.since is None else v.since


def _verdict(condition: Condition, facts: RunFacts) -> Verdict:
    judgement = _judged(condition, facts)
    state = judgement.state
    if condition.is_informational and state == VerdictState.ALARM:
        state = VerdictState.WATCH
    shown = state in (VerdictState.WATCH, VerdictState.ALARM)
    return Verdict(
        condition=condition.id, title=(judgement.title if shown else "") or condition.title, state=state,
        since=judgement.since if shown else None, noticed=judgement.noticed if shown else None,
        confidence=judgement.confidence, summary=judgement.summary, evidence=judgement.evidence,
        advice=(judgement.advice or condition.advice) if shown else (), missing=judgement.missing,
        is_informational=condition.is_informational, head=judgement.head if shown else "",
    )  # fmt: skip


def _judged(condition: Condition, facts: RunFacts) -> Judgement:
    try:
        judgement = condition.judge(facts)
        gone = _gone(condition, facts) if judgement.state == VerdictState.HEALTHY else ()
        return _unknown(gone) if gone else judgement
    except Unmeasured as reason:
        return _unknown(reason.missing)
    except Exception as error:  # one condition that fails must not hide the others
        logging.getLogger(__name__).exception("the condition %r failed", condition.id)
        return _unknown((f"the judgement failed with {type(error).__name__}: {error}",))


def _gone(condition: Condition, facts: RunFacts) -> tuple[str, ...]:
    """Return since when, and why, what a condition rests on has had no value, twice at least: then it tells nothing."""
    reasons = []
    for name in condition.rests_on:
        ends = [raw.step[-1] for raw in (facts.raw(name), facts.raw_layers(name)) if len(raw.step)]
        since = [(step, why) for step, why in facts.absences(name) if step > max(ends, default=-1)]
        if len(since) >= _TWICE:
            reasons.append(f"{name}: no value since step {since[0][0]:,}, because {since[-1][1]}")
    return tuple(reasons)


def _unknown(missing: tuple[str, ...]) -> Judgement:
    return Judgement(VerdictState.UNKNOWN, f"Not enough was measured to tell: {'; '.join(missing)}.", missing=missing)
