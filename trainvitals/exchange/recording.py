"""What every import shares: a run found elsewhere becomes an ordinary run of a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainvitals.redaction import redact, redact_text
from trainvitals.schema import Description, Record, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.writer import RunWriter

FLUSH_RECORDS = 8192  # an eighth of what may wait: an import is faster than a disk, and must drop nothing
FLUSH_SECONDS = 600.0


@dataclass
class FoundRun:
    """A run of another program, ready to be recorded."""

    name: str
    program: str  # "TensorBoard"
    records: Iterable[Record]
    started: float | None = None  # seconds since the epoch; the first record's time if left out
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    note: str = ""
    status: Status = Status.FINISHED
    descriptions: dict[str, Description] = field(default_factory=dict)  # filled by `records` too
    left_out: dict[str, int] = field(default_factory=dict)  # what cannot be kept, and how often; filled by `records`


@dataclass(frozen=True)
class Imported:
    """What became of a run."""

    id: str
    path: Path
    num_points: int
    left_out: Mapping[str, int]


def record(found: FoundRun, store: str | os.PathLike[str]) -> Imported:
    """Write a run that was found into a store.

    Secrets in its settings, note and tags are hidden. Nothing is dropped: the writer is waited for.

    Raises:
        StoreError: if the folder cannot be written, or takes no more.
    """
    meta = {"imported": {"program": found.program}, "config": redact(dict(found.config))}
    writer = RunWriter.create(store, found.name, meta, {})
    try:
        num_points, started = _write(found, writer)
        writer.describe(found.descriptions)
        if started is not None:
            writer.header("started", started)
        if found.tags:
            writer.header("tags", [redact_text(tag) for tag in found.tags])
        if found.note:
            writer.header("note", redact_text(found.note))
        _wait(writer)
    except BaseException as error:
        writer.close(Status.CRASHED, f"the import ended early: {type(error).__name__}")
        raise
    writer.close(found.status, f"imported from {found.program}")
    return Imported(writer.id, Path(writer.path), num_points, dict(found.left_out))


def _write(found: FoundRun, writer: RunWriter) -> tuple[int, float | None]:
    num_points, started = 0, found.started
    for number, one in enumerate(found.records, 1):
        started = one.time if started is None else started
        writer.append(one)
        num_points += len(one.scalars) + len(one.readings)
        if number % FLUSH_RECORDS == 0:
            _wait(writer)
    return num_points, started


def _wait(writer: RunWriter) -> None:
    if not writer.flush(FLUSH_SECONDS) or writer.num_dropped:
        raise StoreError(
            f"expected all points to be saved, got {writer.num_dropped} that were not in the import to {writer.path}; "
            "free space there and import again"
        )
