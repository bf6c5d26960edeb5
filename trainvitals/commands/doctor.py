"""`trainvitals doctor`: is everything there that a run and its dashboard need?"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import typer

import trainvitals
from trainvitals.commands.runs import Json, Store
from trainvitals.commands.terminal import example, say, to_json

PACKAGES = ("torch", "numpy", "scipy", "pandas", "streamlit", "plotly", "psutil", "tsdownsample")
MIN_FREE_BYTES = 100 * 2**20  # our choice: a day of a busy run


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is right, and what was found."""

    subject: str
    is_right: bool
    found: str


def doctor(store: Store = "runs/", json: Json = False) -> None:
    """Check versions, the store folder and the runs in it; exit code 1 if something is wrong."""
    checks = [*_versions(), *_store(Path(store)), *_runs(store)]
    if json:
        print(to_json([dataclasses.asdict(check) for check in checks]))
    else:
        for check in checks:
            say(f"{'ok   ' if check.is_right else 'WRONG'} {check.subject}: {check.found}")
    if not all(check.is_right for check in checks):
        raise typer.Exit(1)


def _versions() -> Iterable[Check]:
    yield Check("trainvitals", True, trainvitals.__version__)
    yield Check("python", True, platform.python_version())
    for package in PACKAGES:
        try:
            yield Check(package, True, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Check(package, False, f"not installed; try: pip install {package}")


def _store(store: Path) -> Iterable[Check]:
    """Check the folder itself, or, while there is none, the nearest one above it, where it would be made."""
    folder = store.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    what = f"{store}" if folder == store.absolute() else f"{folder}, where {store} would be made"
    if not folder.is_dir():
        yield Check("store folder", False, f"{what} is a file; give another --store")
        return
    free = shutil.disk_usage(folder).free
    yield Check("free disk", free >= MIN_FREE_BYTES, f"{free / 2**30:.1f} GiB at {what}")
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as inside:
            yield Check("store folder", True, f"can be written: {what}")
            yield _wal(Path(inside))
    except OSError as error:
        yield Check("store folder", False, f"cannot be written: {what} ({error.strerror}); give another --store")


def _wal(folder: Path) -> Check:
    """Try what the store does: a write-ahead log in that folder, read beside its writer."""
    path = folder / "probe.sqlite"
    writer = sqlite3.connect(path)
    reader = None
    try:
        mode = writer.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        writer.executescript("CREATE TABLE probe (x); INSERT INTO probe VALUES (1)")
        reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        seen = reader.execute("SELECT x FROM probe").fetchone()
    except sqlite3.Error as error:
        return Check("sqlite", False, f"{sqlite3.sqlite_version}, fails in {folder.parent}: {error}; use a local disk")
    finally:
        writer.close()
        if reader is not None:
            reader.close()
    works = mode == "wal" and seen == (1,)
    words = "write-ahead log works there" if works else f"no write-ahead log there (mode {mode}); use a local disk"
    return Check("sqlite", works, f"{sqlite3.sqlite_version}, {words}")


def _runs(store: str) -> Iterable[Check]:
    from trainvitals.run import list_runs  # pandas

    runs = list_runs(store)
    broken = [run for run in runs if run.problem is not None]
    yield Check("runs", not broken, f"{len(runs) - len(broken)} readable, {len(broken)} not")
    for run in broken:
        yield Check(f"run {run.id}", False, str(run.problem))


COMMANDS = ((doctor, example("trainvitals doctor", "trainvitals doctor --store experiments/ --json")),)
