"""The runs of a folder. The files are the truth: nothing is cached on disk, nothing can go stale.

In memory the summary of a file is kept for as long as the file's size and times stay as they were,
so a list of many finished runs is a list of `stat` calls after the first look.
"""

from __future__ import annotations

import os
import sqlite3
from functools import lru_cache
from pathlib import Path

from trainvitals.schema import RunSummary
from trainvitals.store.database import reading
from trainvitals.store.errors import StoreError
from trainvitals.store.reader import Header, read_header

SUFFIX = ".sqlite"
MAX_REMEMBERED = 8192


def list_folder(folder: str | os.PathLike[str]) -> list[RunSummary]:
    """Return a summary of every `*.sqlite` file of a folder, newest first, unreadable ones last.

    A folder that does not exist has no runs. A file that cannot be read is listed with its reason in
    `problem`.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.endswith(SUFFIX) and entry.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return []
    runs = [summarise_file(Path(entry.path)) for entry in entries]
    return sorted(runs, key=lambda run: (run.problem is None, run.started or 0.0, run.id), reverse=True)


def summarise_file(path: Path) -> RunSummary:
    """Return the summary of one file; never raises, the reason is in `problem`."""
    try:
        return _header(path, *_stamp(path)).summary(path)
    except (StoreError, OSError) as error:
        problem = str(error)
    except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
        problem = (
            f"expected a TrainVitals run file, got {path} that is damaged ({type(error).__name__}: {error}); "
            f"restore it from a copy or move it out of the store"
        )
    return RunSummary(path.stem, path.stem, str(path), None, None, None, None, None, problem=problem)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes whenever a writer commits: sizes and times of the file and of its log."""
    stat = os.stat(path)
    try:
        log = os.stat(f"{path}-wal")
    except OSError:
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino, log.st_mtime_ns, log.st_size)


@lru_cache(maxsize=MAX_REMEMBERED)
def _header(path: Path, *stamp: int) -> Header:  # the stamp is part of the key
    with reading(path) as connection:
        return read_header(connection)
