"""Verdicts in words and tables, as the first page shows them. Nothing here draws."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from trainvitals.schema import Evidence, Verdict, VerdictState
from trainvitals.views.words import clean, number, share, steps

FOUND = (VerdictState.ALARM, VerdictState.WATCH)


# Words of the page that a newcomer may not know, in Markdown.
GLOSSARY = (
    ("alarm", "several independent measurements agree that something is wrong"),
    ("watch", "some evidence, not yet enough for an alarm"),
    ("to know", "worth knowing, and no illness"),
    ("began at, since", "the step at which it began, told afterwards from the shape of the curve"),
    ("sure enough to tell from step … on", "from there on the measurements that were there sufficed to tell"),
    ("… % sure now", "how far the measurements that agree can be relied on together; fewer measurements, less sure"),
    ("counts above …, counts below …",
     "the level from which on a measurement is evidence, and the side that speaks for "
                                       "the finding; its source stands under *Explain*"),
    ("probe", "a small fixed set of train or held-out samples on which everything is measured again and again"),
    ("held-out", "samples that the network is not trained on"),
    ("loss of guessing", "the loss of always giving the same answer, the best one that ignores the inputs"),
    ("error norm (EL2N)", "how far the network's probabilities for a sample are from its label: 0 agrees, above 1 "
                          "another answer is preferred"),
)  # fmt: skip


def headline(verdicts: Sequence[Verdict]) -> str:
    """Return the answer to "Is anything wrong?" in one or two sentences.

    >>> headline([Verdict("overfitting", "Overfitting", VerdictState.ALARM, 400)])
    'Yes: Overfitting, since step 400.'
    >>> headline([Verdict("overfitting", "Overfitting", VerdictState.HEALTHY)])
    'Nothing is found to be wrong.'
    """
    found = [v for v in verdicts if v.state in FOUND and not v.is_informational]
    first = [v for v in found if not v.follows]
    brought = [clean(v.title, 60) for v in found if v.follows]
    alarms = [v for v in found if v.state == VerdictState.ALARM]
    causes = {v.follows for v in alarms}
    if alarms:
        named = [v for v in first if v.state == VerdictState.ALARM or v.condition in causes]
        answer = f"Yes: {_listed(named or alarms)}."
    elif found:
        answer = f"Perhaps: {_listed(first or found)}."
    elif any(v.state != VerdictState.UNKNOWN for v in verdicts):
        return "Nothing is found to be wrong."
    else:
        return "Too early to say: not enough has been measured yet."
    if brought:
        answer += f" Probably part of it: {', '.join(brought)}."
    return answer


def nothing_found(verdicts: Sequence[Verdict]) -> tuple[list[str], list[str]]:
    """Return the titles of what is healthy, and of what a finding tells of already, with that finding's title.

    >>> found = Verdict("step_too_large", "Step too large", VerdictState.ALARM)
    >>> covered = Verdict("w", "Weight norm growth", VerdictState.HEALTHY, covered_by="step_too_large")
    >>> nothing_found([found, covered, Verdict("o", "Overfitting", VerdictState.HEALTHY)])
    (['Overfitting'], ['Weight norm growth (with “Step too large”)'])
    """
    title = {v.condition: clean(v.title, 60) for v in verdicts}
    healthy = [v for v in verdicts if v.state == VerdictState.HEALTHY]
    told = [f"{clean(v.title, 60)} (with “{title[v.covered_by]}”)" for v in healthy if v.covered_by in title]
    return [clean(v.title, 60) for v in healthy if v.covered_by not in title], told


def coverage(verdicts: Sequence[Verdict]) -> str:
    """Return how many conditions there are, and how many could be checked.

    >>> coverage([Verdict("a", "A", VerdictState.HEALTHY), Verdict("b", "B", VerdictState.UNKNOWN)])
    '2 conditions: 1 could be checked, 1 could not be judged.'
    """
    unknown = sum(v.state == VerdictState.UNKNOWN for v in verdicts)
    told = f"{len(verdicts)} condition{'s' * (len(verdicts) != 1)}"
    if not unknown:
        return f"{told}, {'all' if len(verdicts) != 1 else 'it'} could be checked."
    return f"{told}: {len(verdicts) - unknown} could be checked, {unknown} could not be judged."


def _listed(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(f"{clean(v.title, 60)}{'' if v.since is None else f', {_since(v.since)}'}"
                     for v in verdicts)  # fmt: skip


def _since(step: int) -> str:
    """Return since when.

    >>> _since(0), _since(1200)
    ('from the start, step 0', 'since step 1,200')
    """
    return f"since step {steps(step)}" if step > 0 else f"from the start, step {step}"


def timing(verdict: Verdict) -> str:
    """Return since when, when there was enough to tell, and how sure.

    >>> timing(Verdict("overfitting", "Overfitting", VerdictState.ALARM, 400, 450, 0.94))
    'began at step 400 · sure enough to tell from step 450 on · 94 % sure now'
    """
    parts = [] if verdict.since is None else [f"began at {'the start, ' * (verdict.since <= 0)}step "
                                              f"{steps(verdict.since)}"]  # fmt: skip
    if verdict.noticed is not None and verdict.noticed != verdict.since:
        parts.append(f"sure enough to tell from step {steps(verdict.noticed)} on")
    return " · ".join([*parts, f"{share(verdict.confidence)} sure now"])


def evidence_table(verdict: Verdict) -> pd.DataFrame:
    """Return the measured numbers beside the levels that they are compared with."""
    columns = ["What", "Value", "Level", "Holds", "Since", "From", "Source of the level"]
    rows = [(clean(_what(e)), number(e.value), f"{clean(e.comparison, 10)} {number(e.threshold)}",
             "yes" if e.holds else "no", "" if e.since is None else f"step {steps(e.since)}", _origin(e),
             clean(e.source)) for e in verdict.evidence]  # fmt: skip
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
    """Return the conditions that could not be judged, what is missing for each, and what to do."""
    rows = [(clean(v.title, 80), clean("; ".join(v.missing) or v.summary, 400), clean(how_to_measure(v.missing), 400))
            for v in verdicts if v.state == VerdictState.UNKNOWN]  # fmt: skip
    return pd.DataFrame(rows, columns=["Condition", "What is missing", "How to measure it"])


# Metrics that a name alone does not switch on, by the beginning of their names.
_OPTIONS = {
    "adv": 'probes={"adv": {"epsilon": …}}, where you train against attacks',
    "feature": 'probes={"feature.response": {"features": {…}}}, where inputs have named features',
    "attention": 'probes=["default", "attention"], where the network has attention',
}


def how_to_measure(missing: Sequence[str]) -> str:
    """Return what to write in `tv.watch` for metrics that were not measured, or what else to do.

    >>> how_to_measure(["nc1: not measured"]), how_to_measure(["loss.train: 3 of 8 measurements needed"])
    ('probes=["default", "nc1"]', 'train on: it comes with more steps')
    """
    names = [text.split(":")[0] for text in missing if text.endswith("not measured")]
    names += [text.split(":")[0] for text in missing if "not measured (" in text]
    ways = dict.fromkeys(_OPTIONS.get(name.split(".")[0], f'probes=["default", "{name}"]') for name in names)
    if ways:
        return "; ".join(ways)
    if any("no value since" in m for m in missing):
        return "see the findings: it comes back with the network"
    return "train on: it comes with more steps" if any("measurements needed" in m for m in missing) else "–"
