"""The writer of a run: the training thread only appends to a queue, a background thread saves.

What the training thread does in `append` is a comparison and an append to a deque. The background
thread owns the file's only read-write connection and saves twice a second, each time in one
transaction. Nothing that goes wrong there reaches training: it is one warning, and drops are counted.
"""

from __future__ import annotations

import atexit
import contextlib
import os
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
from trainvitals.store.catalogue import remember
from trainvitals.store.errors import StoreError
from trainvitals.store.intake import num_array_bytes
from trainvitals.store.opening import OpenRun, begin_run, continue_run
from trainvitals.store.saving import Saver, Word
from trainvitals.store.source import read_words
from trainvitals.store.state import State

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

    def __init__(
        self, opened: OpenRun, *, max_records: int = MAX_RECORDS, flush_seconds: float = FLUSH_SECONDS
    ) -> None:
        self.id = opened.id
        self.resumed_at = 0  # the step at which this writer's part of the run begins
        self._opened = opened
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
        self._thread = threading.Thread(target=self._work, name=f"trainvitals {self.id}", daemon=True)
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
        opened = begin_run(folder, name, meta, descriptions)
        return cls(opened, max_records=max_records, flush_seconds=flush_seconds)

    @classmethod
    def resume(cls, path: str | os.PathLike[str], descriptions: Mapping[str, Description], *,
               step: int | None = None, meta: Mapping[str, Any] | None = None,
               max_records: int = MAX_RECORDS, flush_seconds: float = FLUSH_SECONDS) -> RunWriter:  # fmt: skip
        """Go on with a run that has ended or was killed; an event marks the seam.

        Args:
            path: of the run's file.
            descriptions: of the metrics to come; those of the same name are replaced.
            step: at which training goes on; where the run ended if left out.
            meta: what is known of this part of the run; kept beside that of the first, under "parts".
            max_records: how many may wait in the queue.
            flush_seconds: between saves.

        Raises:
            StoreError: if the run cannot be written, or another process writes it.
        """
        opened, before = continue_run(Path(path))
        parts = read_words(opened.rows.connection, ("parts",)).get("parts", [])
        writer = cls(opened, max_records=max_records, flush_seconds=flush_seconds)
        writer.resumed_at = (before.last_step or 0) if step is None else step
        writer.describe(descriptions)
        if meta is not None:
            writer.header("parts", [*parts, {"step": writer.resumed_at, "started": time.time(), **meta}])
        writer.event(Event(writer.resumed_at, time.time(), "resumed", _seam(before, writer.resumed_at)))
        return writer

    @property
    def path(self) -> Path:
        """The run's file. On a network file system it is another one once the run has ended."""
        return self._opened.path

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

    def header(self, key: str, value: Any) -> None:
        """Note something about the run as a whole, such as its tags; plain enough for JSON. Never raises."""
        if not self._is_closed:
            self._queue.append(Word(key, value))

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
            saver = self._saver()
            while self._goodbye is None:
                self._wake.wait(self._flush_seconds)
                self._wake.clear()
                self._save(saver)
            self._finish(saver)
        except StoreError as error:  # the run is no longer ours to write
            self._num_unstorable += self._num_left
            self._warn(f"{error}; training goes on, and nothing more of it is recorded")
        except Exception as error:  # whatever it is, training must not notice
            self._fail(error)
        finally:
            self._is_closed = True
            self._opened.close()

    def _saver(self) -> Saver:
        """Return what saves; on a disk that is full even the first look into the file may fail, and is tried again."""
        while True:
            try:
                return Saver(self._opened.rows, self._opened.lease)
            except (sqlite3.Error, OSError) as error:
                if self._goodbye is not None:
                    self._num_unstorable += self._num_left
                    raise
                self._fail(error)
                self._wake.wait(self._flush_seconds)
                self._wake.clear()

    @property
    def _num_left(self) -> int:
        """Points that wait in the queue."""
        return sum(len(item.scalars) + len(item.readings) for item in self._queue if isinstance(item, Record))

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
        except StoreError:
            self._num_unstorable += saver.discard()
            raise
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
            self._num_unstorable += saver.num_unsaved_points + self._num_left
            return
        assert self._goodbye is not None
        saver.finish(*self._goodbye, self.num_dropped)
        self._opened.settle()
        remember(self.path)

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
        self._opened.leave_to_parent()


def _abandon_all() -> None:
    for writer in list(_writers):
        writer._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _seam(before: State, step: int) -> str:
    """Return in words where one part of a run ends and the next begins."""
    end = "before its first step" if before.last_step is None else f"at step {before.last_step}"
    how = before.status if before.status in (Status.FINISHED, Status.CRASHED) else "cut off"
    return f"goes on at step {step} after a part that was {how} {end}, {time.time() - before.heartbeat:.0f} s before"
