"""The writer of a run: the training thread only appends to a queue, a background thread saves.

What the training thread does in `append` is a comparison and an append to a deque. The background
thread owns the file's only read-write connection and saves twice a second, each time in one
transaction. Nothing that goes wrong there reaches training: it is one warning, and drops are counted.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import re
import secrets
import sqlite3
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainvitals.schema import Description, Event, Record, Status
from trainvitals.store.database import connect_writer, leave_wal
from trainvitals.store.errors import StoreError
from trainvitals.store.intake import num_array_bytes
from trainvitals.store.interning import clean
from trainvitals.store.liveness import this_process
from trainvitals.store.migrations import migrate
from trainvitals.store.saving import Saver

FLUSH_SECONDS = 0.5  # a reader sees a point within this time; twice a second costs the disk nothing
MAX_RECORDS = 65_536  # in the queue: half a minute of 2,000 steps a second while the disk hangs
MAX_VECTOR_BYTES = 64 * 2**20  # of arrays in the queue: vectors are dropped above it, numbers are not
CLOSE_SECONDS = 60.0

_writers: weakref.WeakSet[RunWriter] = weakref.WeakSet()


class _Acknowledgement:
    """A mark in the queue: set once everything before it is committed."""

    def __init__(self) -> None:
        self.done = threading.Event()


class RunWriter:
    """Writes one run into one file. Make it with `create`; the methods may be called from any thread.

    A forked child's copy writes nothing. A run that nobody closes is closed when Python exits.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> writer = RunWriter.create(folder.name, "my run", {"note": "an example"}, {})
    >>> writer.append(Record(step=1, time=0.0, scalars={"loss": 0.5}))
    >>> writer.flush(10.0)
    True
    >>> writer.close(Status.FINISHED)
    >>> writer.path.name == f"{writer.id}.sqlite"
    True
    >>> folder.cleanup()
    """

    def __init__(self, id: str, path: Path, connection: sqlite3.Connection, *,
                 max_records: int = MAX_RECORDS, flush_seconds: float = FLUSH_SECONDS) -> None:  # fmt: skip
        self.id = id
        self.path = path
        self._connection = connection
        self._queue: deque[Any] = deque()
        self._max_records = max_records
        self._flush_seconds = flush_seconds
        self._vector_bytes_in = 0  # written by the training thread only
        self._vector_bytes_out = 0  # written by the writer's thread only
        self._step: int | None = None  # how far training is, where it says so; written by the training thread only
        self._num_refused = 0  # points that found no room; written by the training thread only
        self._num_unstorable = 0  # points that are not numbers, or were left at a failed end; by the writer's thread
        self._is_closed = False
        self._goodbye: tuple[Status, str] | None = None
        self._wake = threading.Event()
        self._has_warned = False
        self._thread = threading.Thread(target=self._work, name=f"trainvitals {id}", daemon=True)
        _writers.add(self)
        atexit.register(self._close_at_exit)
        self._thread.start()

    @classmethod
    def create(cls, folder: str | os.PathLike[str], name: str, meta: Mapping[str, Any],
               descriptions: Mapping[str, Description], *,
               max_records: int = MAX_RECORDS, flush_seconds: float = FLUSH_SECONDS) -> RunWriter:  # fmt: skip
        """Begin a run in a file of its own in the folder, which is made if need be.

        Args:
            folder: where run files live.
            name: of the run, as people call it.
            meta: what is known of the run; must be plain enough for JSON.
            descriptions: of the metrics to come; `describe` adds more.
            max_records: how many may wait in the queue.
            flush_seconds: between saves.

        Raises:
            StoreError: if the folder cannot be made or written.
        """
        started = time.time()
        id = f"{_slug(name)}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}-{secrets.token_hex(2)}"
        path = _folder(folder) / f"{id}.sqlite"
        header = {"id": id, "name": name, "started": started, "meta": dict(meta), "process": this_process()}
        texts = {key: json.dumps(value, default=str) for key, value in header.items()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = _create_file(path, texts, descriptions, started)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"expected a folder where runs can be written, got {os.fspath(folder)!r} ({error}) "
                f"in RunWriter.create; choose another folder or free space and permissions there"
            ) from error
        return cls(id, path, connection, max_records=max_records, flush_seconds=flush_seconds)

    @property
    def num_dropped(self) -> int:
        """Points that were not saved: the queue was full, or they could not be stored."""
        return self._num_refused + self._num_unstorable

    def append(self, record: Record) -> None:
        """Hand over one record; it must not be changed afterwards. Never blocks and never raises.

        With more than 64 MiB of arrays waiting, or half of the queue full, the record's arrays are
        dropped and its numbers kept; with all of the queue full the record is dropped.
        """
        waiting = len(self._queue)
        if self._is_closed or waiting >= self._max_records:
            self._num_refused += len(record.scalars) + len(record.readings)
            return
        if record.readings:
            record = self._within_limits(record, waiting)
        self._queue.append(record)
        if waiting * 4 == self._max_records:
            self._wake.set()

    def _within_limits(self, record: Record, waiting: int) -> Record:
        num_bytes = {name: n for name, reading in record.readings.items() if (n := num_array_bytes(reading))}
        total = sum(num_bytes.values())
        pending = self._vector_bytes_in - self._vector_bytes_out
        if num_bytes and (pending + total > MAX_VECTOR_BYTES or 2 * waiting >= self._max_records):
            self._num_refused += len(num_bytes)
            kept = {name: reading for name, reading in record.readings.items() if name not in num_bytes}
            return Record(record.step, record.time, kept, record.scalars)
        self._vector_bytes_in += total
        return record

    def progress(self, step: int) -> None:
        """Say how far training is, with or without points: the next heartbeat carries it. Costs an assignment."""
        self._step = step

    def event(self, event: Event) -> None:
        """Note something that happened. Never blocks and never raises."""
        if not self._is_closed and len(self._queue) < 2 * self._max_records:
            self._queue.append(event)

    def describe(self, descriptions: Mapping[str, Description]) -> None:
        """Add or replace descriptions of metrics. Never blocks and never raises."""
        if not self._is_closed:
            self._queue.append(dict(descriptions))

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Save now; True when everything appended so far, drops aside, is committed."""
        if self._is_closed:
            return False
        mark = _Acknowledgement()
        self._queue.append(mark)
        self._wake.set()
        return mark.done.wait(timeout_seconds)

    def close(self, status: Status = Status.FINISHED, message: str = "") -> None:
        """Save all, compact, record how the run ended, and let the file go. Further calls do nothing."""
        if self._is_closed:
            return
        self._goodbye = (status, message)
        self._is_closed = True
        atexit.unregister(self._close_at_exit)
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._warn(f"the run file {self.path} was still being written {CLOSE_SECONDS:.0f} s after close")

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        status = Status.FINISHED if error is None else Status.CRASHED
        self.close(status, "" if error is None else f"{type(error).__name__}: {error}")

    # ---- the writer's thread

    def _work(self) -> None:
        try:
            saver = Saver(self._connection)
            while self._goodbye is None:
                self._wake.wait(self._flush_seconds)
                self._wake.clear()
                self._save(saver)
            self._finish(saver)
        except Exception as error:  # whatever it is, training must not notice
            self._fail(error)
        finally:
            self._is_closed = True
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()

    def _save(self, saver: Saver) -> bool:
        """Save what waits in the queue; a batch that failed is tried again first, alone."""
        if not saver.has_unsaved:
            self._take(saver)
        num_bytes, marks = saver.num_array_bytes, list(saver.marks)
        try:
            saver.save(self.num_dropped, self._step)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return False
        except Exception as error:  # a fault of ours: the same batch would fail for ever
            self._num_unstorable += saver.discard()
            self._fail(error)
            return False
        self._num_unstorable += saver.take_num_unstorable()
        self._vector_bytes_out += num_bytes
        for mark in marks:
            mark.done.set()
        return True

    def _take(self, saver: Saver) -> None:
        for _ in range(len(self._queue)):
            item = self._queue.popleft()
            if isinstance(item, Record):
                saver.add(item, sum(map(num_array_bytes, item.readings.values())) if item.readings else 0)
            elif isinstance(item, _Acknowledgement):
                saver.marks.append(item)
            else:
                saver.note(item)

    def _finish(self, saver: Saver) -> None:
        is_saved = self._save(saver) and (not self._queue or self._save(saver))
        if not is_saved:
            self._num_unstorable += saver.num_unsaved_points + sum(
                len(item.scalars) + len(item.readings) for item in self._queue if isinstance(item, Record)
            )
            return
        assert self._goodbye is not None
        saver.finish(*self._goodbye, self.num_dropped)
        deadline = time.monotonic() + 2.0
        while not leave_wal(self._connection) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _fail(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"expected to save the run to {self.path}, got {type(error).__name__}: {error}; training goes on, "
                f"saving is tried again twice a second, and points that no longer fit in memory are dropped and counted"
            )

    @staticmethod
    def _warn(text: str) -> None:
        with contextlib.suppress(RuntimeWarning):  # warnings may be errors here; training must not notice
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    def _close_at_exit(self) -> None:
        error = getattr(sys, "last_value", None)  # an uncaught exception ended the program
        if error is None:
            self.close(Status.FINISHED, "the program ended without closing the run")
        else:
            self.close(Status.CRASHED, f"{type(error).__name__}: {error}")

    def _abandon(self) -> None:
        """Leave the file to the parent: called in a forked child, whose copy has no thread."""
        self._is_closed = True
        atexit.unregister(self._close_at_exit)
        # Closing the inherited connection could fold the parent's log away under it: keep it for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))


def _abandon_all() -> None:
    for writer in list(_writers):
        writer._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


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


def _create_file(path: Path, header: Mapping[str, str], descriptions: Mapping[str, Description],
                 started: float) -> sqlite3.Connection:  # fmt: skip
    """Make the file complete under a hidden name, then give it its own: no reader sees half a file."""
    hidden = path.with_name(f".{path.name}.new")
    os.close(os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # the log and its index inherit the mode
    try:
        with contextlib.closing(sqlite3.connect(hidden, isolation_level=None)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # the end of the run gives free pages back
            migrate(connection, str(path))
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO header VALUES (?, ?)", header.items())
            rows = [(clean(metric), description.to_json()) for metric, description in descriptions.items()]
            connection.executemany("INSERT INTO descriptions VALUES (?, ?)", rows)
            connection.execute("INSERT INTO state VALUES (1, ?, '', ?, NULL, 0, 0, 0)", (Status.LIVE, started))
            connection.execute("COMMIT")
        os.rename(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    return connect_writer(path)
