"""One save: a batch of records, events and descriptions into the file, in one transaction.

A batch stays here until it is committed. After an error (the disk is full) the same batch is saved
again, and the queue behind it fills up meanwhile: so memory stays bounded, and nothing is lost that
fits in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainvitals.schema import Description, Event, Record, Status
from trainvitals.store.codec import encode_frames
from trainvitals.store.compaction import compact
from trainvitals.store.intake import Intake
from trainvitals.store.interning import Interned, clean
from trainvitals.store.rows import Rows
from trainvitals.store.schema_sql import POINTS_PER_CHUNK
from trainvitals.store.state import State, check_lease, read_state, write_state


@dataclass(frozen=True)
class Word:
    """Something known of the run as a whole: a row of `header`."""

    key: str
    value: Any  # plain enough for JSON


Note = Event | Mapping[str, Description] | Word

DROPS_EVENT_SECONDS = 10.0  # a queue that stays full is one event in this time, not one a save


class Saver:
    """Saves batches to one connection; remembers what has to be remembered between them."""

    def __init__(self, rows: Rows, lease: str) -> None:
        self._rows = rows
        self._lease = lease
        self._load_ids()
        state = read_state(rows.connection)
        self._last_step = state.last_step
        self._next_seq = state.num_records
        self._num_points = state.num_points
        self._num_dropped_before = state.num_dropped  # by writers of this run before us
        self._num_drops_told = 0
        self._drops_told_at = -DROPS_EVENT_SECONDS
        self._num_unstorable = 0
        self._clear()

    def _load_ids(self) -> None:
        self._interned = Interned(self._rows)
        hot = self._rows.connection.execute("SELECT coalesce(sum(num_frames), 0) FROM hot").fetchone()
        self._num_hot: int = hot[0]
        self._is_stale = False

    def _clear(self) -> None:
        self._records: list[Record] = []
        self._notes: list[Note] = []
        self.marks: list[Any] = []
        self.num_array_bytes = 0

    @property
    def has_unsaved(self) -> bool:
        """Whether a batch waits here that could not be saved."""
        return bool(self._records or self._notes or self.marks)

    @property
    def num_unsaved_points(self) -> int:
        """Points of the batch that could not be saved."""
        return sum(len(r.scalars) + len(r.readings) for r in self._records)

    def add(self, record: Record, num_array_bytes: int) -> None:
        """Put a record into the batch."""
        self._records.append(record)
        self.num_array_bytes += num_array_bytes

    def note(self, item: Note) -> None:
        """Put an event, descriptions or a word about the run into the batch."""
        self._notes.append(item)

    def take_num_unstorable(self) -> int:
        """Return how many points could not be stored since the last call."""
        number, self._num_unstorable = self._num_unstorable, 0
        return number

    def discard(self) -> int:
        """Give the batch up and return how many points were in it."""
        number = self.num_unsaved_points
        self._clear()
        return number

    def save(self, num_dropped: int, step: int | None = None) -> None:
        """Commit the batch and a heartbeat; on an error nothing of it is in the file and it stays here.

        `step` is how far training says it is; without it the last record's step stands.

        Raises:
            sqlite3.Error: whatever the database says.
            LeaseLostError: if another process continues the run.
        """
        told = self._num_drops_told, self._drops_told_at
        try:
            if self._is_stale:
                self._load_ids()
            self._rows.begin()
            check_lease(self._rows.connection, self._lease)
            intake, reached = self._save_batch(num_dropped, step)
            self._rows.commit()
        except BaseException:
            self._num_drops_told, self._drops_told_at = told
            self._roll_back()
            raise
        self._last_step = reached
        self._next_seq, self._num_points = intake.next_seq, self._num_points + intake.num_points
        self._num_unstorable += intake.num_unstorable
        self._clear()

    def _roll_back(self) -> None:
        self._is_stale = True  # ids given in this transaction go with it
        self._rows.roll_back()

    def _save_batch(self, num_dropped: int, step: int | None) -> tuple[Intake, int | None]:
        intake = Intake(self._interned, self._next_seq)
        for record in self._records:
            intake.add(record)
        self._save_frames(intake)
        self._rows.put("vectors", *((self._rows.next_id("vectors"), *vector) for vector in intake.vectors))
        for note in self._notes:
            try:
                self._save_note(note)
            except (TypeError, ValueError, OverflowError) as error:
                intake.problems.append(f"an event or a description could not be stored: {error}")
        now = time.time()
        reached = next((s for s in (step, intake.last_step, self._last_step) if s is not None), None)
        num_dropped += intake.num_unstorable
        self._tell_problems(intake.problems, reached or 0, now)
        self._tell_drops(num_dropped, reached or 0, now)
        num_points = self._num_points + intake.num_points
        num_dropped += self._num_dropped_before
        write_state(self._rows, State(
            Status.LIVE, "", now, reached, intake.next_seq, num_points, num_dropped, self._lease
        ))  # fmt: skip
        return intake, reached

    def _save_frames(self, intake: Intake) -> None:
        blocks = list(intake.frames())
        self._num_hot += sum(len(frames) for _, frames in blocks)
        if self._num_hot >= POINTS_PER_CHUNK:
            intake.problems += compact(self._rows, self._interned.layouts, blocks)
            self._num_hot = 0
            return
        self._rows.put("hot", *(
            (self._rows.next_id("hot"), layout, len(frames), encode_frames(frames)) for layout, frames in blocks
        ))  # fmt: skip

    def _save_note(self, note: Note) -> None:
        if isinstance(note, Event):
            self._save_event(int(note.step), float(note.time), str(note.kind), str(note.message))
        elif isinstance(note, Word):
            self._rows.put("header", (clean(note.key), json.dumps(note.value, default=str)))
        else:
            self._rows.put("descriptions", *((clean(name), words.to_json()) for name, words in note.items()))

    def _save_event(self, step: int, at: float, kind: str, message: str) -> None:
        self._rows.put("events", (self._rows.next_id("events"), step, at, clean(kind), clean(message)))

    def _tell_problems(self, problems: list[str], step: int, now: float) -> None:
        if problems:
            more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
            self._save_event(step, now, "warning", problems[0] + more)

    def _tell_drops(self, num_dropped: int, step: int, now: float, at_end: bool = False) -> None:
        new = num_dropped - self._num_drops_told
        if new and (at_end or time.monotonic() - self._drops_told_at >= DROPS_EVENT_SECONDS):
            self._save_event(step, now, "dropped", f"{new} points were dropped, {num_dropped} in all")
            self._num_drops_told, self._drops_told_at = num_dropped, time.monotonic()

    def finish(self, status: Status, message: str, num_dropped: int) -> None:
        """Compact all and record the end of the run.

        Raises:
            sqlite3.Error: whatever the database says.
        """
        now, connection = time.time(), self._rows.connection
        self._rows.begin()
        try:
            check_lease(connection, self._lease)
            damage = compact(self._rows, self._interned.layouts)
            self._tell_problems(damage, self._last_step or 0, now)
            self._tell_drops(num_dropped, self._last_step or 0, now, at_end=True)
            reached = replace(
                read_state(connection), status=str(status), message=clean(message), heartbeat=now,
                num_dropped=num_dropped + self._num_dropped_before, lease="",
            )  # fmt: skip
            write_state(self._rows, reached)
            self._rows.commit()
            # `execute` would stop after the first page: each is a row without columns, and ends the statement
            connection.executescript("PRAGMA incremental_vacuum")
        except BaseException:
            self._roll_back()
            raise
