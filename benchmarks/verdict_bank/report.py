"""The report: tables in Markdown of what was found on each half of the bank, beside the naive rules."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import pandas as pd

from verdict_bank.early import INDICATORS, lead, set_level
from verdict_bank.evaluation import Findings
from verdict_bank.naive import RULES
from verdict_bank.scoring import Answer, Score, agreement, scores, total, wilson
from verdict_bank.setting import FOR_REPORT, FOR_THRESHOLDS, INFORMATIONAL
from verdict_bank.training import Entry

HEADER = """# Verdicts against a bank of labelled runs

Made by `python benchmarks/verdicts.py`. Labels come from how a run was made and from what was measured beside it
without the probes (a dense held-out loss on other data, the wrong labels themselves, exact counts), not from the
rules. Settings, architectures and seeds differ between the two halves; thresholds were set on the first.
"found" counts `watch` and `alarm` alike; a false alarm is either of them on a healthy run (informational conditions
aside); "inside" is the share of onsets within the labelled window; "delay" is the median of (step at which it was
noticed − last step of that window) in per cent of the run: below 0 it was noticed before the window closed.
"""


def report(entries: Sequence[Entry], findings: Mapping[str, Findings], machine: str) -> str:
    """Return the whole report."""
    parts = [HEADER, f"Machine: {machine}.\n", _counts(entries)]
    for half, title in ((FOR_REPORT, "Reporting half"), (FOR_THRESHOLDS, "Half for thresholds")):
        chosen = [e for e in entries if e.half == half]
        if chosen:
            parts += [f"## {title}\n", _sums(chosen, findings), _by_condition(chosen, findings)]
    parts += ["## Early signs of overfitting\n", early_report(entries, findings)]
    return "\n".join(parts)


def _counts(entries: Sequence[Entry]) -> str:
    rows = []
    for half in (FOR_THRESHOLDS, FOR_REPORT):
        chosen = [e for e in entries if e.half == half]
        rows.append(
            {
                "half": half,
                "runs": len(chosen),
                "settings": len({e.setting for e in chosen}),
                "healthy": sum(e.is_healthy for e in chosen),
                "look-alikes": sum(bool(e.quiet) for e in chosen),
                "labelled conditions": sum(len(e.labels) for e in chosen),
            }
        )
    return table(rows)


def _ours(findings: Mapping[str, Findings]) -> dict[str, Mapping[str, Answer]]:
    return {path: found.ours for path, found in findings.items()}


def _sums(entries: Sequence[Entry], findings: Mapping[str, Findings]) -> str:
    ours = total(scores(entries, _ours(findings)).values())
    first = {c: rules[0].words for c, rules in RULES.items()}
    naive = {path: {c: found.naive[w][c] for c, w in first.items()} for path, found in findings.items()}
    rows = [
        _line("conditions of trainvitals.verdicts", ours),
        _line("the first naive rule of each", total(scores(entries, naive).values())),
    ]
    same, several = agreement(entries, _ours(findings))
    return table(rows) + f"\nOver seeds: {same} of {several} labelled conditions with several seeds got one state.\n"


def _line(name: str, s: Score) -> dict[str, str]:
    return {
        "all conditions": name,
        "recall": share(s.num_found, s.num_expected),
        "false alarms on healthy runs": share(s.num_false, s.num_checked),
        "look-alikes that fired": share(s.num_alike_false, s.num_alike),
        "onset inside": share(s.num_inside, s.num_placed),
        "delay": percent(s.delay),
    }


def _by_condition(entries: Sequence[Entry], findings: Mapping[str, Findings]) -> str:
    ours = scores(entries, _ours(findings))
    rows = []
    for condition, s in ours.items():
        rows.append(_row(f"`{condition}`" + (" (informational)" if condition in INFORMATIONAL else ""), s))
        for rule in RULES.get(condition, ()):
            answers = {path: found.naive[rule.words] for path, found in findings.items()}
            rows.append(_row(f"naive: {rule.words}", scores(entries, answers).get(condition, Score())))
    return table(rows)


def _row(name: str, s: Score) -> dict[str, str]:
    return {
        "condition": name,
        "found": f"{s.num_found} of {s.num_expected}" + (f" ({s.num_unknown} unknown)" if s.num_unknown else ""),
        "onset inside": f"{s.num_inside} of {s.num_placed}",
        "delay": percent(s.delay),
        "false on healthy": f"{s.num_false} of {s.num_checked}",
        "look-alikes fired": f"{s.num_alike_false} of {s.num_alike}",
    }


def early_report(entries: Sequence[Entry], findings: Mapping[str, Findings]) -> str:
    """Return how many steps before the held-out loss turned other metrics already pointed there."""
    rows = []
    for name in INDICATORS:
        half = {h: _courses([e for e in entries if e.half == h], findings, name) for h in (FOR_THRESHOLDS, FOR_REPORT)}
        level = set_level(*half[FOR_THRESHOLDS])
        if level is None:
            continue
        found = lead(level, *half[FOR_REPORT])
        median = statistics.median(found.leads) if found.leads else math.nan
        rows.append(
            {
                "metric": name,
                "level": f"{'above' if level.is_above else 'below'} {level.value:.3g}",
                "pointed there before the turn": f"{len(found.leads)} of {found.num_runs}",
                "median lead, share of the steps to the turn": percent(median),
                "healthy runs that ever passed it": f"{found.num_false} of {found.num_healthy}",
            }
        )
    text = (
        "Levels were set on the half for thresholds so that at most a tenth of its healthy runs ever pass them; "
        "figures are of the reporting half. The turn is the middle of the labelled window.\n\n"
    )
    return text + (table(rows) if rows else "Too few runs.\n")


def _courses(entries: Sequence[Entry], findings: Mapping[str, Findings], name: str) -> tuple[list, list]:
    healthy, overfit = [], []
    for entry in entries:
        steps, values = findings[entry.path].early.get(name, ((), ()))
        course = pd.Series(values, index=steps, dtype=float)
        label = entry.labels.get("overfitting")
        if entry.is_healthy:
            healthy.append(course)
        elif label is not None and label.onset is not None:
            overfit.append((course, sum(label.onset) // 2))
    return healthy, overfit


def share(num: int, of: int) -> str:
    """Return a share with its 95 % interval.

    >>> share(9, 10)
    '9 of 10: 90 % (60–98)'
    >>> share(0, 0)
    '–'
    """
    if not of:
        return "–"
    low, high = wilson(num, of)
    return f"{num} of {of}: {_short(100 * num / of)} % ({100 * low:.0f}–{100 * high:.0f})"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def percent(value: float) -> str:
    """Return a share in per cent, or a dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a Markdown table."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"
