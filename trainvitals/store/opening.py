"""A run opened for writing: begun anew, or continued; in a file of its own, or on a network as a log.

One process writes a run. It holds the run's lease, and every save looks whether it still does.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainvitals.schema import Description, Status
from trainvitals.store.catalogue import SUFFIX
from trainvitals.store.database import connect_writer, leave_wal, reading
from trainvitals.store.errors import StoreError
from trainvitals.store.filesystems import network_type
from trainvitals.store.fragments import SUFFIX as LOG_SUFFIX
from trainvitals.store.fragments import FragmentLog, reading_log, whole_table
from trainvitals.store.interning import clean
from trainvitals.store.liveness import is_gone, status_of, this_process
from trainvitals.store.migrations import migrate
from trainvitals.store.rows import COLUMNS, Rows
from trainvitals.store.source import header_of, read_words
from trainvitals.store.state import State, check_lease, read_state, write_state


class OpenRun:
    """A run that this process may write. Made by `begin_run` and `continue_run`."""

    def __init__(self, id: str, path: Path, rows: Rows, lease: str, log: FragmentLog | None = None) -> None:
        self.id = id
        self.path = path
        self.rows = rows
        self.lease = lease
        self._log = log

    def settle(self) -> None:
        """After the end of the run: leave one plain file that opens from a read-only folder."""
        if self._log is None:
            deadline = time.monotonic() + 2.0
            while not leave_wal(self.rows.connection) and time.monotonic() < deadline:
                time.sleep(0.02)
            return
        final = self.path.with_suffix(SUFFIX)
        publish(self.rows.connection, final)
        self._log.close()
        self.path.unlink()
        self.path = final

    def close(self) -> None:
        """Let the files go."""
        with contextlib.suppress(sqlite3.Error):
            self.rows.connection.close()
        if self._log is not None:
            self._log.close()

    def leave_to_parent(self) -> None:
        """In a forked child: closing the inherited connection could fold the parent's log away under it."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.rows.connection))


def begin_run(folder: Any, name: str, meta: Mapping[str, Any], descriptions: Mapping[str, Description]) -> OpenRun:
    """Begin a run in the folder, which is made if need be.

    Raises:
        StoreError: if the folder cannot be made or written.
    """
    started = time.time()
    id = f"{_slug(name)}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}-{secrets.token_hex(2)}"
    lease = secrets.token_hex(8)
    words = {"id": id, "name": name, "started": started, "meta": dict(meta), "process": this_process()}
    place = _folder(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if network_type(place) is not None:
            return _begin_log(place / f"{id}{LOG_SUFFIX}", words, descriptions, lease)
        path = place / f"{id}{SUFFIX}"
        _create_file(path, words, descriptions, lease)
        return OpenRun(id, path, Rows(connect_writer(path)), lease)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"expected a folder where runs can be written, got {os.fspath(folder)!r} ({error}) "
            f"in RunWriter.create; choose another folder or free space and permissions there"
        ) from error


def _folder(folder: Any) -> Path:
    """Return the store's folder. An address such as postgresql://… is none, and would make an odd one."""
    if isinstance(folder, str | os.PathLike) and "://" not in os.fspath(folder) and os.fspath(folder):
        return Path(folder)
    raise StoreError(
        f"expected a folder where runs can be written, got {folder!r} in RunWriter.create; "
        "write a path such as 'runs/'"
    )


def _slug(name: str) -> str:
    """Return the name as lower-case ASCII letters, digits and dashes; "run" if nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-") or "run"


def _fill(connection: sqlite3.Connection, words: Mapping[str, Any], descriptions: Mapping[str, Description],
          lease: str) -> None:  # fmt: skip
    """Make the tables and write what is known at the beginning."""
    migrate(connection, str(words["id"]))
    rows = Rows(connection)
    rows.begin()
    rows.put("header", *((key, json.dumps(value, default=str)) for key, value in words.items()))
    rows.put("descriptions", *((clean(metric), d.to_json()) for metric, d in descriptions.items()))
    write_state(rows, State(Status.LIVE, "", words["started"], lease=lease))
    rows.commit()


def _create_file(path: Path, words: Mapping[str, Any], descriptions: Mapping[str, Description], lease: str) -> None:
    """Make the file complete under a hidden name, then give it its own: no reader sees half a file."""
    hidden = path.with_name(f".{path.name}.new")
    os.close(os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # the log and its index inherit the mode
    try:
        with contextlib.closing(sqlite3.connect(hidden, isolation_level=None)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # the end of the run gives free pages back
            _fill(connection, words, descriptions, lease)
        os.rename(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


# ---- on a network file system


def _local_database() -> sqlite3.Connection:
    """Return a database on the local disk that is gone when it is closed, or the process is.

    The log is what lasts, so nothing here waits for the disk.
    """
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _begin_log(path: Path, words: Mapping[str, Any], descriptions: Mapping[str, Description], lease: str) -> OpenRun:
    connection = _local_database()
    _fill(connection, words, descriptions, lease)
    log = FragmentLog(path)
    log.append([whole_table(connection, table) for table in COLUMNS])
    return OpenRun(str(words["id"]), path, Rows(connection, log), lease, log)


def publish(connection: sqlite3.Connection, path: Path) -> None:
    """Write a database as an ordinary run file: made whole on the local disk, then copied and named."""
    hidden = path.with_name(f".{path.name}.new")
    with tempfile.TemporaryDirectory(prefix="trainvitals-") as folder:
        whole = Path(folder) / path.name
        connection.execute("VACUUM INTO ?", (os.fspath(whole),))
        try:
            file = os.open(hidden, os.O_CREAT | os.O_WRONLY, 0o600)
            with whole.open("rb") as source, os.fdopen(file, "wb") as target:
                shutil.copyfileobj(source, target, 2**20)
                target.flush()
                os.fsync(target.fileno())
            os.rename(hidden, path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise


# ---- a run goes on


def continue_run(path: Path) -> tuple[OpenRun, State]:
    """Take over a run that nobody writes any more, and return it with how far it had come.

    Raises:
        StoreError: if it cannot be read or written, or a process that is alive writes it.
    """
    try:
        return (_continue_log if path.suffix == LOG_SUFFIX else _continue_file)(path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"expected a run that can be continued, got {path} ({error}) in RunWriter.resume; "
            "check its permissions, or begin a new run"
        ) from error


def _continue_file(path: Path) -> tuple[OpenRun, State]:
    _check_that_nobody_writes(path, "RunWriter.resume")
    connection = connect_writer(path)
    try:
        migrate(connection, str(path))
        rows, lease = Rows(connection), secrets.token_hex(8)
        rows.begin()  # of two that try, the second waits here, and then finds the first one's lease
        id, before = _take_over(rows, path, lease)
        rows.commit()
        if not path.exists():
            raise FileNotFoundError("it was deleted meanwhile")
        return OpenRun(id, path, rows, lease), before
    except BaseException:
        connection.close()
        raise


def _continue_log(path: Path) -> tuple[OpenRun, State]:
    connection, lease = _local_database(), secrets.token_hex(8)
    try:
        with reading_log(path) as (source, _):
            source.backup(connection)
            size = path.stat().st_size
        log = FragmentLog(path, size)
        rows = Rows(connection, log)
        rows.begin()
        id, before = _take_over(rows, path, lease)
        rows.commit()
        return OpenRun(id, path, rows, lease, log), before
    except BaseException:
        connection.close()
        raise


def _take_over(rows: Rows, path: Path, lease: str) -> tuple[str, State]:
    """Write our lease into the run, inside a transaction, unless somebody alive holds it."""
    before, words = read_state(rows.connection), read_words(rows.connection)
    refuse_if_written(header_of(words, before).process, before, path, "RunWriter.resume")
    rows.put("header", ("process", json.dumps(this_process())))
    write_state(rows, replace(before, status=Status.LIVE, message="", heartbeat=time.time(), lease=lease))
    check_lease(rows.connection, lease)
    return str(words["id"]), before


@contextmanager
def editing(path: Path) -> Iterator[Rows]:
    """Give the rows of a run that nobody writes, to be changed in one transaction.

    Raises:
        StoreError: if it cannot be read or written, or a process that is alive writes it.
    """
    if path.suffix == LOG_SUFFIX or not path.is_file():
        raise StoreError(
            f"expected a run file that can be changed, got {path} in editing; a run on a network file system "
            "can be changed once it has ended"
        )
    _check_that_nobody_writes(path, "editing")
    rows = Rows(connect_writer(path))
    try:
        migrate(rows.connection, str(path))
        rows.begin()
        state, words = read_state(rows.connection), read_words(rows.connection)
        refuse_if_written(header_of(words, state).process, state, path, "editing")
        yield rows
        rows.commit()
    except (OSError, sqlite3.Error, KeyError, TypeError) as error:
        raise StoreError(
            f"expected a run file that can be changed, got {path} ({error}) in editing; "
            "check its permissions, or `trainvitals doctor` if it is damaged"
        ) from error
    finally:
        rows.roll_back()
        leave_wal(rows.connection)
        rows.connection.close()


def _check_that_nobody_writes(path: Path, call: str) -> None:
    """Look before the file is opened for writing, which a file of another program or a live run must not be."""
    with reading(path) as connection:
        state, words = read_state(connection), read_words(connection, ("process",))
    refuse_if_written(words.get("process", {}), state, path, call)


def refuse_if_written(process: Mapping[str, Any], state: State, path: Path, call: str) -> None:
    """Refuse to touch a run that a process writes, or may write.

    Raises:
        StoreError: with that process and its last heartbeat.
    """
    status = status_of(state.status, state.heartbeat, process)
    # a process on another machine that is long silent may be dead: if it is not, it finds its lease gone
    if status in (Status.FINISHED, Status.CRASHED) or (status is Status.STALLED and is_gone(process) is None):
        return
    age = max(0.0, time.time() - state.heartbeat)
    host = str(process.get("host")).partition("/")[0]
    raise StoreError(
        f"expected a run that nobody writes, got {path} that process {process.get('pid')} on {host} holds "
        f"({status}, last heard from {age:.0f} s ago) in {call}; wait for its end, stop it, or begin a new run"
    )
