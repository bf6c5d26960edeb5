"""Which runs may go: by age, by number, by size, by tag; and how a run's files are deleted.

A rule only ever names runs that have ended. Those that a process writes, that may still be written on
another machine, and those that cannot be read are kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainvitals.schema import RunSummary, Status
from trainvitals.store.catalogue import summarise_file
from trainvitals.store.errors import StoreError

_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip
_PARTS = ("", "-wal", "-shm")


@dataclass(frozen=True)
class Rules:
    """What may go. A run goes if any of `older_than`, `keep_last` and `max_bytes` says so.

    `tags` and `keep_tags` narrow that down: only runs with one of `tags`, never one with one of `keep_tags`.
    With `tags` alone, all runs that have one go.
    """

    older_than_seconds: float | None = None  # since the run was last heard from
    keep_last: int | None = None  # the newest that stay
    max_bytes: int | None = None  # that all runs may take together, the oldest going first
    tags: frozenset[str] = frozenset()
    keep_tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Condemned:
    """A run that may go, and why."""

    run: RunSummary
    num_bytes: int
    reason: str


def condemned(runs: Iterable[RunSummary], rules: Rules, now: float) -> list[Condemned]:
    """Return the runs that may go, newest first."""
    ended = sorted((run for run in runs if _has_ended(run)), key=lambda run: run.started or 0.0, reverse=True)
    chosen = [run for run in ended if (not rules.tags or rules.tags & set(run.tags))]
    chosen = [run for run in chosen if not rules.keep_tags & set(run.tags)]
    has_other = any(rule is not None for rule in (rules.older_than_seconds, rules.keep_last, rules.max_bytes))
    found, total = [], 0
    for place, run in enumerate(chosen):
        num_bytes = num_bytes_of(run)
        total += num_bytes
        reason = _reason(run, rules, now, place, total, has_other)
        if reason:
            found.append(Condemned(run, num_bytes, reason))
    return found


def _has_ended(run: RunSummary) -> bool:
    return run.problem is None and run.status in (Status.FINISHED, Status.CRASHED)


def _reason(run: RunSummary, rules: Rules, now: float, place: int, total: int, has_other: bool) -> str:
    age = now - (run.updated or now)
    if rules.older_than_seconds is not None and age > rules.older_than_seconds:
        return f"{age / 86_400:.1f} days old"
    if rules.keep_last is not None and place >= rules.keep_last:
        return f"not among the last {rules.keep_last}"
    if rules.max_bytes is not None and total > rules.max_bytes:
        return "beyond the size that all may have together"
    if rules.tags and not has_other:
        return f"tagged {', '.join(sorted(rules.tags & set(run.tags)))}"
    return ""


def num_bytes_of(run: RunSummary) -> int:
    """Return what the files of a run take on the disk."""
    total = 0
    for part in _PARTS:
        try:
            total += os.stat(f"{run.path}{part}").st_size
        except FileNotFoundError:
            continue
    return total


def delete(run: RunSummary) -> bool:
    """Delete the files of a run; False if it is written again or gone meanwhile.

    Raises:
        OSError: if they cannot be deleted.
    """
    path = Path(run.path)
    if not path.exists() or not _has_ended(summarise_file(path)):
        return False
    for part in _PARTS:
        Path(f"{path}{part}").unlink(missing_ok=True)
    return True


def seconds_of(text: str) -> float:
    """Return a time such as "30d", "12h" or "2w" in seconds.

    Raises:
        StoreError: for anything else.

    >>> seconds_of("2d"), seconds_of("90m")
    (172800.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip().lower())
    if not found:
        raise StoreError(f'expected a time such as "30d", got {text!r} in prune; units are m, h, d and w')
    return float(found[1]) * _SECONDS[found[2]]


def bytes_of(text: str) -> int:
    """Return a size such as "10GB" or "500 MiB" in bytes.

    Raises:
        StoreError: for anything else.

    >>> bytes_of("1.5 GB"), bytes_of("2KiB"), bytes_of("12")
    (1500000000, 2048, 12)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B|)", text.strip().upper())
    if not found or found[2] not in _BYTES:
        raise StoreError(f'expected a size such as "10GB", got {text!r} in prune; units are KB to TB and KiB to TiB')
    return int(float(found[1]) * _BYTES[found[2]])


def total_bytes(found: Sequence[Condemned]) -> int:
    """Return what all of them take."""
    return sum(one.num_bytes for one in found)
