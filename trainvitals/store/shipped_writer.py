"""The writer of a run whose store is a database: a run file first, always, and a process that ships it.

The shipper is a process of its own. Training shares no lock with it, and it outlives a trainer that is
killed: it sends the rest, says that the run crashed, and ends. What it could not send stays in the run
file, for `trainvitals ship`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainvitals.schema import Description, Status
from trainvitals.store.postgres_address import check, is_address, missing_driver, shown
from trainvitals.store.writer import RunWriter

SPOOL_VARIABLE = "TRAINVITALS_SPOOL"  # the folder of the run files that are shipped
DEFAULT_SPOOL = "runs/"
CLOSE_SECONDS = 10.0  # that the end of a run waits for the shipper; it goes on by itself


def create_writer(
    store: Any, name: str, meta: Mapping[str, Any], descriptions: Mapping[str, Description]
) -> RunWriter | ShippedWriter:
    """Begin a run in a folder, or in a folder and a database.

    Args:
        store: a folder, or a PostgreSQL address: then the run file is in the folder that TRAINVITALS_SPOOL
            names, or in `runs/`.
        name: of the run, as people call it.
        meta: what is known of the run.
        descriptions: of the metrics to come.

    Raises:
        StoreError: if the folder cannot be written, the address is wrong or the database refuses it.
    """
    if not is_address(store):
        return RunWriter.create(store, name, meta, descriptions)
    check(store)
    try_address(store)
    spool = os.environ.get(SPOOL_VARIABLE) or DEFAULT_SPOOL
    writer = RunWriter.create(spool, name, meta, descriptions)
    return ShippedWriter(writer, store)


def try_address(address: str) -> None:
    """Ask the database before training begins: a wrong password is an error now, an outage only a warning.

    Raises:
        StoreError: if the database refuses, or the driver is not installed.
    """
    try:
        from trainvitals.store import postgres_connection, shipping
    except ImportError as error:
        raise missing_driver(error) from error
    try:
        shipping.ready_connection(address).close()
    except postgres_connection.AwayError as error:
        _warn(f"trainvitals: {error}; training goes on, points are saved here and shipped when it is back")


class ShippedWriter:
    """A `RunWriter` with a shipper beside it."""

    def __init__(self, writer: RunWriter, address: str) -> None:
        self._writer = writer
        self._address = address
        self.id = writer.id
        self.path = writer.path
        # Bound here, not wrapped: what the training thread calls costs it nothing more.
        self.append = writer.append
        self.progress = writer.progress
        self.event = writer.event
        self.describe = writer.describe
        self.flush = writer.flush
        self.header = writer.header
        self.shipper = start_shipper(writer.path, address)

    @property
    def num_dropped(self) -> int:
        """Points that were not saved in the run file."""
        return self._writer.num_dropped

    def close(self, status: Status = Status.FINISHED, message: str = "") -> None:
        """End the run; wait a little for the shipper, which otherwise goes on by itself."""
        self._writer.close(status, message)
        if self.shipper is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.shipper.wait(CLOSE_SECONDS) == 0:
                return
        left = f"trainvitals ship {self.path} --to {shown(self._address)}"
        how = "the shipper goes on for an hour; later run" if self.shipper.poll() is None else "run"
        _warn(f"trainvitals: the run is saved in {self.path}, not all of it is in the database yet; {how}: {left}")


def start_shipper(path: Path, address: str) -> subprocess.Popen[bytes] | None:
    """Start the process that ships a run file until the run is over; None where no process can be started.

    The address goes in through a pipe: the list of processes shows arguments to everyone.
    """
    command = [sys.executable, "-P", "-m", "trainvitals.store.shipper_process", str(path.absolute())]
    # The shipper must find this package as we did.
    found_in = os.pathsep.join(os.path.abspath(folder) for folder in sys.path if folder)
    environment = {**os.environ, "PYTHONPATH": found_in, "OMP_NUM_THREADS": "1"}
    try:
        shipper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment, start_new_session=True, cwd=path.parent,
        )  # fmt: skip
        assert shipper.stdin is not None
        with shipper.stdin as pipe:
            pipe.write(address.encode() + b"\n")
        return shipper
    except OSError as error:
        _warn(f"trainvitals: expected to start the shipper, got {error}; the run is saved in {path}, ship it later")
        return None


def _warn(text: str) -> None:
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=4)
    except RuntimeWarning:  # warnings are errors in this program: an outage must not end it
        print(text, file=sys.stderr)
