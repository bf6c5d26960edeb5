"""What our conditions and the naive rules say of the runs of the bank, each read through the public surface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import Pool

import numpy as np
import pandas as pd

import trainvitals as tv
from verdict_bank.early import INDICATORS
from verdict_bank.naive import RULES
from verdict_bank.scoring import Answer
from verdict_bank.training import Entry

COLUMNS = ["step", "key", "value"]


@dataclass(frozen=True)
class Findings:
    """What is said of one run."""

    ours: Mapping[str, Answer]  # by condition
    naive: Mapping[str, Mapping[str, Answer]]  # by the rule's words, then by condition
    early: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # steps and values by indicator


def evaluate(entries: Sequence[Entry], pool: Pool | None = None) -> dict[str, Findings]:
    """Return the findings of runs by their paths."""
    found = pool.map(_findings, entries, chunksize=1) if pool is not None else map(_findings, entries)
    return {entry.path: findings for entry, findings in zip(entries, found, strict=True)}


def _findings(entry: Entry) -> Findings:
    with tv.open_run(entry.path) as run:
        names = set(run.names())

        def read(name: str) -> pd.DataFrame:
            return run.series(name)[COLUMNS] if name in names else pd.DataFrame(columns=COLUMNS)

        ours = {v.condition: Answer(str(v.state), v.since, v.noticed) for v in tv.verdicts(run)}
        return Findings(ours, naive_answers(read), early_series(read))


def naive_answers(read: Callable[[str], pd.DataFrame]) -> dict[str, dict[str, Answer]]:
    """Return what each naive rule says of a run."""
    found: dict[str, dict[str, Answer]] = {}
    for condition, rules in RULES.items():
        for rule in rules:  # a rule may stand for two conditions
            found.setdefault(rule.words, {})[condition] = rule(read)
    return found


def early_series(read: Callable[[str], pd.DataFrame]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the course of each metric that may point at overfitting early."""
    found = {name: course(read) for name, course in INDICATORS.items()}
    return {name: (s.index.to_numpy(), s.to_numpy(float)) for name, s in found.items() if len(s)}
