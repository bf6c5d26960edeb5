"""What the ranks that do not lead write into: nothing, for the run is the leader's to write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainvitals.schema import Description, Event, Record, Status


class SilentWriter:
    """Has the methods of a run's writer, and the id and the path of the run that the leader writes."""

    num_dropped = 0

    def __init__(self, id: str, path: str) -> None:
        self.id = id
        self.path = Path(path)

    def append(self, record: Record) -> None:
        """Write nothing."""

    def progress(self, step: int) -> None:
        """Write nothing."""

    def event(self, event: Event) -> None:
        """Write nothing."""

    def describe(self, descriptions: Mapping[str, Description]) -> None:
        """Write nothing."""

    def header(self, key: str, value: Any) -> None:
        """Write nothing."""

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Return True: nothing is left to be written."""
        return True

    def close(self, status: Status = Status.FINISHED, message: str = "") -> None:
        """Write nothing."""
