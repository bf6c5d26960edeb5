"""The runs of a folder. The files are the truth; what was read of them is remembered beside them.

`.catalogue.jsonl` has one line a run that has ended, written by its trainer at the end and by
`trainvitals runs`. A line counts only while the run's file has the size and the time of change that
stand in it, and the whole file may be deleted at any time: a list is then made from the run files.
The dashboard only reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainvitals.schema import RunSummary
from trainvitals.store.database import reading
from trainvitals.store.errors import StoreError
from trainvitals.store.fragments import SUFFIX as LOG_SUFFIX
from trainvitals.store.source import Header, header_of, read_words
from trainvitals.store.state import read_state

SUFFIX = ".sqlite"
SUFFIXES = (SUFFIX, LOG_SUFFIX)
FILE = ".catalogue.jsonl"
MAX_REMEMBERED = 8192
WORDS = ("id", "name", "started", "process", "tags", "note")

Stamp = tuple[int, ...]
Lines = Mapping[str, tuple[Stamp, Header]]  # by the name of the run's file


def list_folder(folder: str | os.PathLike[str]) -> list[RunSummary]:
    """Return a summary of every run file of a folder, newest first, unreadable ones last.

    A folder that does not exist has no runs. A file that cannot be read is listed with its reason in
    `problem`.
    """
    files = _files(folder)
    lines = _read_lines(Path(folder) / FILE) if files else {}
    runs = [_summarise(Path(path), lines) for path in files]
    return sorted(runs, key=lambda run: (run.problem is None, run.started or 0.0, run.id), reverse=True)


def summarise_file(path: Path) -> RunSummary:
    """Return the summary of one file; never raises, the reason is in `problem`."""
    return _summarise(path, {})


def update(folder: str | os.PathLike[str]) -> bool:
    """Write the folder's catalogue anew if lines are missing, wrong or left over; True if it was written.

    Nothing happens, and nothing is raised, where it cannot be written.
    """
    path = Path(folder) / FILE
    files = _files(folder)
    before = _read_lines(path)
    now: dict[str, tuple[Stamp, Header]] = {}
    for file in map(Path, files):
        with contextlib.suppress(StoreError, OSError, sqlite3.Error, KeyError, TypeError, ValueError):
            stamp = _stamp(file)
            header = _header_of(file, stamp, before)
            if len(stamp) == 2 and header.recorded_status != "live":
                now[file.name] = stamp, header
    if now == before:
        return False
    hidden = path.with_name(f"{FILE}.new")
    try:
        with os.fdopen(os.open(hidden, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.writelines(_line(name, *entry) for name, entry in now.items())
        os.replace(hidden, path)
    except OSError:
        return False
    return True


def remember(path: Path) -> None:
    """Add the line of a run that has just ended. Nothing is raised where it cannot be written."""
    with contextlib.suppress(StoreError, OSError, sqlite3.Error, KeyError, TypeError, ValueError):
        stamp = _stamp(path)
        if len(stamp) == 2:
            line = _line(path.name, stamp, _header(path, stamp)).encode()
            file = os.open(path.with_name(FILE), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            try:
                os.write(file, line)  # one write: lines of trainers that end together do not mix
            finally:
                os.close(file)


def _files(folder: str | os.PathLike[str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.name.endswith(SUFFIXES) and entry.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _summarise(path: Path, lines: Lines) -> RunSummary:
    try:
        return _header_of(path, _stamp(path), lines).summary(os.fspath(path))
    except (StoreError, OSError) as error:
        problem = str(error)
    except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
        problem = (
            f"expected a TrainVitals run file, got {path} that is damaged ({type(error).__name__}: {error}); "
            f"try `trainvitals doctor --repair`, restore it from a copy or move it out of the store"
        )
    return RunSummary(path.stem, path.stem, str(path), None, None, None, None, None, problem=problem)


def _header_of(path: Path, stamp: Stamp, lines: Lines) -> Header:
    known = lines.get(path.name)
    return known[1] if known is not None and known[0] == stamp else _header(path, stamp)


def _stamp(path: Path) -> Stamp:
    """Return what changes whenever a writer commits: sizes and times of the file and of its log."""
    stat = os.stat(path)
    try:
        log = os.stat(f"{path}-wal")
    except OSError:
        return stat.st_mtime_ns, stat.st_size
    return stat.st_mtime_ns, stat.st_size, log.st_mtime_ns, log.st_size


@lru_cache(maxsize=MAX_REMEMBERED)
def _header(path: Path, stamp: Stamp) -> Header:  # the stamp is part of the key
    with reading(path) as connection:
        return header_of({"meta": {}, **read_words(connection, WORDS)}, read_state(connection))


# ---- lines


def _line(name: str, stamp: Stamp, header: Header) -> str:
    return json.dumps({"file": name, "stamp": stamp, "header": asdict(header)}) + "\n"


def _read_lines(path: Path) -> dict[str, tuple[Stamp, Header]]:
    """Return the lines of a catalogue; what is no line of ours is passed over, of one run the last counts."""
    try:
        stat = path.stat()
        return _parsed(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, UnicodeDecodeError):
        return {}


@lru_cache(maxsize=8)
def _parsed(path: Path, *stamp: int) -> dict[str, tuple[Stamp, Header]]:
    return dict(_entries(path.read_text(encoding="utf-8").splitlines()))


def _entries(lines: Iterable[str]) -> Iterable[tuple[str, tuple[Stamp, Header]]]:
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # torn, or made by another version
            entry = json.loads(line)
            yield str(entry["file"]), (tuple(entry["stamp"]), _checked(entry["header"]))


def _checked(raw: Mapping[str, Any]) -> Header:
    """Return a header from JSON, or raise if a field of it is of another kind than a list shows."""
    header = Header(**{**raw, "tags": tuple(raw["tags"])})
    texts = (header.id, header.name, header.recorded_status, header.message, header.note, *header.tags)
    numbers = (header.started, header.heartbeat, header.num_points, header.last_step or 0)
    if not all(isinstance(t, str) for t in texts) or not all(isinstance(n, int | float) for n in numbers):
        raise TypeError("a field is of another kind")
    return header
