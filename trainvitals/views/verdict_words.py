"""Verdicts in words and tables, as the first page shows them. Nothing here draws."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from trainvitals.schema import Evidence, Verdict, VerdictState
from trainvitals.views.words import clean, number, share, steps

FOUND = (VerdictState.ALARM, VerdictState.WATCH)


def headline(verdicts: Sequence[Verdict]) -> str:
    """Return the answer to "Is anything wrong?" in one sentence, counted.

    >>> headline([Verdict("overfitting", "Overfitting", VerdictState.ALARM, 400)])
    'Yes: Overfitting, since step 400. 1 condition checked.'
    >>> headline([Verdict("overfitting", "Overfitting", VerdictState.HEALTHY)])
    'Nothing is found to be wrong. 1 condition checked.'
    """
    alarms = [v for v in verdicts if v.state == VerdictState.ALARM]
    watched = [v for v in verdicts if v.state == VerdictState.WATCH and not v.is_informational]
    if alarms:
        answer = f"Yes: {_listed(alarms)}."
    elif watched:
        answer = f"Perhaps: {_listed(watched)}."
    elif any(v.state != VerdictState.UNKNOWN for v in verdicts):
        answer = "Nothing is found to be wrong."
    else:
        return "Too early to say: not enough has been measured yet."
    unknown = sum(v.state == VerdictState.UNKNOWN for v in verdicts)
    checked = len(verdicts) - unknown
    counted = f"{checked} condition{'s' * (checked != 1)} checked"
    return f"{answer} {counted}{f', {unknown} not measured well enough' if unknown else ''}."


def _listed(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(f"{clean(v.title, 60)}{'' if v.since is None else f', since step {steps(v.since)}'}"
                     for v in verdicts)  # fmt: skip


def timing(verdict: Verdict) -> str:
    """Return since when, when noticed, and how sure.

    >>> timing(Verdict("overfitting", "Overfitting", VerdictState.ALARM, 400, 450, 0.94))
    'since step 400, noticed at 450, confidence 94 %'
    """
    parts = [] if verdict.since is None else [f"since step {steps(verdict.since)}"]
    if verdict.noticed is not None and verdict.noticed != verdict.since:
        parts.append(f"noticed at {steps(verdict.noticed)}")
    return ", ".join([*parts, f"confidence {share(verdict.confidence)}"])


def evidence_table(verdict: Verdict) -> pd.DataFrame:
    """Return the measured numbers beside the levels that they are compared with."""
    columns = ["What", "Value", "Level", "Holds", "From", "Source of the level"]
    rows = [(clean(_what(e)), number(e.value), f"{clean(e.comparison, 10)} {number(e.threshold)}",
             "yes" if e.holds else "no", _origin(e), clean(e.source)) for e in verdict.evidence]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _origin(e: Evidence) -> str:
    return clean(f"{e.metric}{f' of {e.key}' if e.key else ''}, step {steps(e.step)}")


def _what(e: Evidence) -> str:
    """Return the clause if it is true, else what was measured."""
    return (e.words if e.holds else "") or e.quantity or e.metric


def would_change_its_mind(verdict: Verdict) -> str:
    """Return what would have to be measured for the verdict to be withdrawn; empty if it rests on nothing.

    >>> held = Evidence("overtraining", 900, 1.3, "above", 1.1, "bank", "the held-out loss has turned")
    >>> would_change_its_mind(Verdict("o", "O", VerdictState.ALARM, evidence=(held,)))
    'the held-out loss has turned: back to 1.1 or below'
    """
    other = {"above": "below", "below": "above"}
    parts = [
        f"{clean(e.quantity or e.words or e.metric)}: back to {number(e.threshold)} or {other.get(e.comparison, '')}"
        for e in verdict.evidence if e.holds
    ]  # fmt: skip
    return "; ".join(parts)


def unknown_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the conditions that could not be judged, and what is missing for each."""
    rows = [(clean(v.title, 80), clean("; ".join(v.missing) or v.summary, 400))
            for v in verdicts if v.state == VerdictState.UNKNOWN]  # fmt: skip
    return pd.DataFrame(rows, columns=["Condition", "What is missing"])
