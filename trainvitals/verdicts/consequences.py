"""Which of the findings probably brought which about: told by what can follow from what, and by when each began.

A link is a guess from two things, a mechanism that is known (`Condition.follows`) and an order in time. It groups what
is found and hides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainvitals.schema import Verdict, VerdictState
from trainvitals.verdicts.condition import Condition

FOUND = (VerdictState.ALARM, VerdictState.WATCH)
# Shares of the run: so much before its cause was to be seen a consequence may begin, and so much after it the link is
# called probable. Our choice.
_BEFORE, _SOON = 0.03, 0.25


def linked(verdicts: Sequence[Verdict], by_id: Mapping[str, Condition], last_step: int) -> list[Verdict]:
    """Return the verdicts with `follows` and `relation` filled in where one probably follows from another.

    A verdict follows from one that can bring it about, is still there, and began before it or with it. Onsets are told
    to within a few measurements, so one that began a little earlier than its only possible cause follows from it too;
    where each of two can bring the other about, only the order in time counts.
    """
    found = [v for v in verdicts if v.state in FOUND and v.since is not None and not v.is_informational]
    return [_linked(v, found, by_id, last_step) if v in found else v for v in verdicts]


def _linked(v: Verdict, found: Sequence[Verdict], by_id: Mapping[str, Condition], last_step: int) -> Verdict:
    causes = [a for a in found if a is not v and _brought_about(a, v, by_id, last_step)]
    if not causes:
        return v
    cause = min(causes, key=lambda a: (by_id[a.condition].precedence, -(a.since or 0)))
    words = _in_words((v.since or 0) - (cause.since or 0), cause.title, _SOON * last_step)
    return replace(v, follows=cause.condition, relation=words)


def _brought_about(a: Verdict, v: Verdict, by_id: Mapping[str, Condition], last_step: int) -> bool:
    first, second = by_id[a.condition], by_id[v.condition]
    if first.id not in second.follows or a.since is None or v.since is None:
        return False
    later = v.since - a.since
    if later == 0 and second.id in first.follows:
        return (first.precedence, first.id) < (second.precedence, second.id)
    earliest = 0 if second.id in first.follows else -_BEFORE * last_step
    return earliest <= later


def _in_words(later: int, cause: str, soon: float) -> str:
    """Return how far apart they began.

    >>> _in_words(5, "Step too large", 100)
    'Began 5 steps after “Step too large”, and probably follows from it.'
    """
    if later == 0:
        return f"Began together with “{cause}”, and probably belongs to it."
    apart = f"{abs(later):,} step{'s' * (abs(later) != 1)}"
    if later < 0:
        return f"Began {apart} before “{cause}”, and probably is its first sign."
    return f"Began {apart} after “{cause}”, and {'probably follows' if later <= soon else 'may follow'} from it."


def covered(verdicts: Sequence[Verdict], by_id: Mapping[str, Condition]) -> list[Verdict]:
    """Return the verdicts with `covered_by` filled in where a healthy one's symptom is told of by one that is found.

    Weights that one huge step threw are no growth out of proportion, and a reader who is told of them must not read
    that nothing was found of the kind.
    """
    told: dict[str, str] = {}
    found = [v for v in verdicts if v.state in FOUND and not v.is_informational]
    for v in sorted(found, key=lambda v: (by_id[v.condition].precedence, v.since or 0)):  # causes before consequences
        for symptom in (e.symptom for e in v.evidence if e.holds and e.symptom):
            told.setdefault(symptom, v.condition)
    return [_covered(v, by_id[v.condition].symptoms, told) for v in verdicts]


def _covered(v: Verdict, symptoms: Sequence[str], told: Mapping[str, str]) -> Verdict:
    by = next((told[symptom] for symptom in symptoms if symptom in told), "")
    return replace(v, covered_by=by) if by and v.state == VerdictState.HEALTHY else v


def root(v: Verdict, by_id: Mapping[str, Verdict]) -> Verdict:
    """Return the verdict that stands at the beginning of the chain; the verdict itself if it follows from none."""
    seen = {v.condition}
    while v.follows in by_id and v.follows not in seen:
        seen.add(v.follows)
        v = by_id[v.follows]
    return v
