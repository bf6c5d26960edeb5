"""All conditions on one run: what `trainvitals.verdicts(run)` and `Run.verdicts()` return."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from trainvitals.schema import Verdict, VerdictState
from trainvitals.verdicts.condition import Condition, Judgement, conditions
from trainvitals.verdicts.run_facts import RunFacts, Unmeasured

_RANK = {VerdictState.ALARM: 0, VerdictState.WATCH: 1, VerdictState.HEALTHY: 2, VerdictState.UNKNOWN: 3}


class HasVerdicts(Protocol):
    """A recorded run, as `trainvitals.open_run` returns it."""

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts."""
        ...


def verdicts(run: HasVerdicts) -> list[Verdict]:
    """Return what is to be said of a run, one verdict a condition, the worst first.

    States: `healthy`; `watch`, some evidence, or something worth knowing; `alarm`, several independent pieces of
    evidence; `unknown`, and `missing` says what was not measured. Among equals the surest comes first.

    Example:
        >>> import tempfile, torch, trainvitals as tv
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
    """Return one verdict for each of the conditions, by default all, the worst first."""
    asked = list(conditions() if chosen is None else chosen)
    found = [_verdict(condition, facts) for condition in asked]
    first = {condition.id: condition.precedence for condition in asked}
    return sorted(
        found, key=lambda v: (_RANK[v.state], v.is_informational, first[v.condition], -v.confidence, v.condition)
    )


def _verdict(condition: Condition, facts: RunFacts) -> Verdict:
    judgement = _judged(condition, facts)
    state = judgement.state
    if condition.is_informational and state == VerdictState.ALARM:
        state = VerdictState.WATCH
    shown = state in (VerdictState.WATCH, VerdictState.ALARM)
    return Verdict(
        condition=condition.id, title=condition.title, state=state,
        since=judgement.since if shown else None, noticed=judgement.noticed if shown else None,
        confidence=judgement.confidence, summary=judgement.summary, evidence=judgement.evidence,
        advice=condition.advice if shown else (), missing=judgement.missing,
        is_informational=condition.is_informational,
    )  # fmt: skip


def _judged(condition: Condition, facts: RunFacts) -> Judgement:
    try:
        return condition.judge(facts)
    except Unmeasured as reason:
        return _unknown(reason.missing)
    except Exception as error:  # one condition that fails must not hide the others
        logging.getLogger(__name__).exception("the condition %r failed", condition.id)
        return _unknown((f"the judgement failed with {type(error).__name__}: {error}",))


def _unknown(missing: tuple[str, ...]) -> Judgement:
    return Judgement(VerdictState.UNKNOWN, f"Not enough was measured to tell: {'; '.join(missing)}.", missing=missing)
