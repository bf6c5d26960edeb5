"""A damaged run made whole from what is intact in it; the damaged file is kept beside it.

Everything that can be reached and fits its checksum is copied into a new file: rows one by one,
points chunk by chunk, chunks that no summary names any more among them. Summaries are made anew.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trainvitals.schema import Status
from trainvitals.store.codec import DamagedError, decode_arrays, decode_chunk, series_of_chunk
from trainvitals.store.compaction import add_points, compact
from trainvitals.store.database import present, reading
from trainvitals.store.fragments import SUFFIX as LOG_SUFFIX
from trainvitals.store.fragments import damage_of_log
from trainvitals.store.interning import Interned, clean
from trainvitals.store.migrations import migrate
from trainvitals.store.opening import publish, refuse_if_written
from trainvitals.store.rows import Row, Rows
from trainvitals.store.schema_sql import Field
from trainvitals.store.source import SqliteSource
from trainvitals.store.state import State, read_state, write_state
from trainvitals.store.summaries import decode_summaries

SMALL_TABLES = ("header", "series", "texts", "layouts", "descriptions", "events")
KEPT_SUFFIX = ".damaged"


@dataclass(frozen=True)
class Repair:
    """What a repair did."""

    path: Path  # of the run now
    kept: Path  # the file as it was
    num_points: int  # in the run now, every field of a metric counted
    damage: tuple[str, ...]  # what was lost, in words


def repair(path: Path) -> Repair:
    """Replace a run's file by one with all that is intact in it; the old one is kept as `*.damaged`.

    A log of a killed run on a network file system becomes an ordinary file.

    Raises:
        StoreError: if a process writes the run, or nothing of it can be read.
    """
    path = present(path)
    new = sqlite3.connect("", isolation_level=None)
    try:
        new.execute("PRAGMA auto_vacuum = INCREMENTAL")
        migrate(new, str(path))
        with reading(path) as old:
            source = SqliteSource(old)
            source.damage += damage_of_log(path)
            _refuse_if_written(source, path)
            rows = Rows(new)
            rows.begin()
            num_points = _copy(source, rows, path)
            _put_event(rows, source.damage)
            rows.commit()
        kept = _keep(path)
        publish(new, path.with_suffix(".sqlite"))
        if path.suffix == LOG_SUFFIX:
            path.unlink()
        return Repair(path.with_suffix(".sqlite"), kept, num_points, tuple(dict.fromkeys(source.damage)))
    finally:
        new.close()


def _refuse_if_written(source: SqliteSource, path: Path) -> None:
    try:
        header = source.header()
    except (KeyError, TypeError, ValueError, sqlite3.DatabaseError):
        return  # nothing says that anybody does
    state = State(header.recorded_status, header.message, header.heartbeat)
    refuse_if_written(header.process, state, path, "repair")


def _keep(path: Path) -> Path:
    """Give the damaged file a second name, and its log with it."""
    names = (path.with_name(f"{path.name}{KEPT_SUFFIX}{i or ''}") for i in itertools.count())
    kept = next(name for name in names if not name.exists())
    try:
        os.link(path, kept)
    except OSError:  # no links on this file system
        shutil.copy2(path, kept)
    log = Path(f"{path}-wal")
    if log.exists():
        log.rename(f"{kept}-wal")
    Path(f"{path}-shm").unlink(missing_ok=True)
    return kept


def _copy(source: SqliteSource, rows: Rows, path: Path) -> int:
    """Copy all that is intact and return how many points; what is not is in `source.damage`."""
    for table in SMALL_TABLES:
        rows.put(table, *source.intact_rows(table))
    places = _places_of_bodies(source)
    for series, _, id in places:
        add_points(rows, series, decode_chunk(source.bodies([id])[id]))
    layouts = Interned(rows).layouts
    hot = [(layout, frames) for layout, frames in source.hot_blocks() if layout in layouts]
    compact(rows, layouts, hot)
    vectors = list(_vectors(source))
    rows.put("vectors", *vectors)
    _name_nameless_series(rows)
    _put_header(rows, path)
    _put_state(source, rows)
    chunks = rows.connection.execute("SELECT summary FROM chunks WHERE level = 0").fetchall()
    return int(decode_summaries([summary for (summary,) in chunks])["num_points"].sum()) + len(vectors)


def _places_of_bodies(source: SqliteSource) -> list[tuple[int, int, int]]:
    """Return (series, first_seq, id) of every intact body that can be reached, named by a summary or not."""
    known = {id for (id,) in source.scan("SELECT body FROM chunks WHERE level = 0 ORDER BY series, first_seq")}
    known |= {id for (id,) in source.scan("SELECT id FROM bodies ORDER BY id")}
    places = []
    for id in range(1, max(known, default=0) + 1):  # one by one: a page that is gone hides ids from a scan
        for data in source.bodies([id]).values():
            try:
                places.append((series_of_chunk(data), int(decode_chunk(data).seq[0]), id))
            except DamagedError as error:
                source.damage.append(f"chunk body {id}: {error}")
    return sorted(places)


def _vectors(source: SqliteSource) -> Iterator[Row]:
    for row in source.intact_rows("vectors"):
        try:
            decode_arrays(row[-1])
            yield row
        except DamagedError as error:
            source.damage.append(f"arrays of record {row[2]}: {error}")


def _name_nameless_series(rows: Rows) -> None:
    """Name the series whose own row was lost by their number, so that their points can be found."""
    nameless = rows.connection.execute(
        "SELECT DISTINCT series FROM (SELECT series FROM chunks UNION SELECT series FROM vectors) "
        "WHERE series NOT IN (SELECT id FROM series)"
    ).fetchall()
    rows.put("series", *((id, f"unnamed.{id}", int(Field.VALUE)) for (id,) in nameless))


def _put_header(rows: Rows, path: Path) -> None:
    found = {key for (key,) in rows.connection.execute("SELECT key FROM header")}
    began = path.stat().st_mtime
    instead = {"id": path.stem, "name": path.stem, "started": began, "meta": {}, "process": {}}
    rows.put("header", *((key, json.dumps(value)) for key, value in instead.items() if key not in found))


def _put_state(source: SqliteSource, rows: Rows) -> None:
    """Keep how the run ended if that is intact; else say what its records say."""
    for row in source.intact_rows("state"):
        state = State(*row[1:])
        break
    else:
        last = rows.connection.execute("SELECT max(last_seq), max(max_step) FROM chunks").fetchone()
        state = State(Status.CRASHED, "how it ended was damaged in its file", time.time(), last[1], (last[0] or -1) + 1)
    if state.status == Status.LIVE:
        state = replace(state, status=Status.CRASHED, message="the process ended without a word")
    write_state(rows, replace(state, lease=""))


def _put_event(rows: Rows, damage: list[str]) -> None:
    lost = "; ".join(list(dict.fromkeys(damage))[:5]) or "nothing"
    step = read_state(rows.connection).last_step or 0
    rows.put("events", (rows.next_id("events"), step, time.time(), "repaired", clean(f"lost in the file: {lost}")))
