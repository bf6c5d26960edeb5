"""The one row of a run file that changes with every save: how far the run is, and who may write it.

The *lease* is a token of the one process that writes. It is looked at inside every transaction that
saves, so a process whose run was continued by another one finds that out before it writes again.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass

from trainvitals.store.errors import StoreError
from trainvitals.store.rows import Rows


class LeaseLostError(StoreError):
    """Another process continues the run: this one must not write any more."""


@dataclass(frozen=True)
class State:
    """How far a run is. Times are seconds since the epoch."""

    status: str
    message: str
    heartbeat: float
    last_step: int | None = None
    num_records: int = 0
    num_points: int = 0
    num_dropped: int = 0
    lease: str = ""


def read_state(connection: sqlite3.Connection) -> State:
    """Return the state of a run file."""
    row = connection.execute(
        "SELECT status, message, heartbeat, last_step, num_records, num_points, num_dropped, lease FROM state"
    ).fetchone()
    return State(*row)


def write_state(rows: Rows, state: State) -> None:
    """Replace the state of a run file, inside the caller's transaction."""
    rows.put("state", (1, *astuple(state)))


def check_lease(connection: sqlite3.Connection, lease: str) -> None:
    """Refuse to write, inside a transaction, when the lease is no longer ours.

    Raises:
        LeaseLostError: if another process has taken the run over.
    """
    (held,) = connection.execute("SELECT lease FROM state").fetchone()
    if held != lease:
        raise LeaseLostError(
            "expected to be the only process that writes this run, got one that another has taken over "
            "(watch(..., resume=...)) in RunWriter; this process stops writing it"
        )
