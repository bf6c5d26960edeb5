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
from typing import Annotated

import typer

import trainvitals
from trainvitals.commands.runs import Json, Store
from trainvitals.commands.terminal import example, say, to_json, wrong_usage
from trainvitals.schema import RunSummary, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.filesystems import network_type
from trainvitals.store.fragments import SUFFIX as LOG_SUFFIX
from trainvitals.store.postgres_address import is_address

PACKAGES = ("torch", "numpy", "scipy", "pandas", "streamlit", "plotly", "psutil", "tsdownsample")
MAX_LINES = 5  # of what is wrong with one run
MIN_FREE_BYTES = 100 * 2**20  # our choice: a day of a busy run


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is right, and what was found."""

    subject: str
    is_right: bool
    found: str


def doctor(
    store: Store = "runs/",
    verify: Annotated[bool, typer.Option("--verify", help="Read every run whole and compare checksums.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Verify, and rebuild damaged runs; the old files are kept.")
    ] = False,
    json: Json = False,
) -> None:
    """Check versions, the store folder and the runs in it; exit code 1 if something is wrong.

    Damage is found by --verify. --repair makes a new file of all that is intact in a damaged one, and
    keeps that one as *.damaged; a killed run on a network file system becomes an ordinary file.
    """
    if repair and is_address(store):
        wrong_usage("expected a folder, got an address of a database; its runs cannot be repaired here")
    about_folder = () if is_address(store) else _store(Path(store))
    checks = [*_versions(), *about_folder, *_runs(store, verify or repair, repair)]
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
    kind = network_type(folder)
    if kind is not None:
        yield Check("file system", True, f"{kind}, shared by machines: live runs are logs there, not SQLite files")
    free = shutil.disk_usage(folder).free
    yield Check("free disk", free >= MIN_FREE_BYTES, f"{free / 2**30:.1f} GiB at {what}")
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as inside:
            yield Check("store folder", True, f"can be written: {what}")
            if kind is None:
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


def _runs(store: str, is_verified: bool, is_repaired: bool) -> Iterable[Check]:
    from trainvitals.run import list_runs  # pandas

    runs = list_runs(store)
    broken = [run for run in runs if run.problem is not None]
    yield Check("runs", not broken, f"{len(runs) - len(broken)} readable, {len(broken)} not")
    for run in broken:
        yield _repaired(run) if is_repaired else Check(f"run {run.id}", False, str(run.problem))
    for run in runs if is_verified else ():
        if run.problem is None:
            yield _verified(run, store, is_repaired)


def _verified(run: RunSummary, store: str, is_repaired: bool) -> Check:
    """Read a run whole."""
    from trainvitals.run import open_run

    try:
        with open_run(run.id, store) as opened:
            damage = opened.damage()
    except StoreError as error:
        damage = [str(error)]
    has_ended = run.status in (Status.FINISHED, Status.CRASHED)
    if is_repaired and (damage or (run.path.endswith(LOG_SUFFIX) and has_ended)):
        return _repaired(run)
    more = f"; {len(damage) - MAX_LINES} more" if len(damage) > MAX_LINES else ""
    words = "; ".join(damage[:MAX_LINES]) + more + "; the rest is read. Try: trainvitals doctor --repair"
    return Check(f"run {run.id}", not damage, words if damage else "whole")


def _repaired(run: RunSummary) -> Check:
    from trainvitals.store.repair import repair

    try:
        done = repair(Path(run.path))
    except (StoreError, OSError, sqlite3.Error) as error:
        return Check(f"run {run.id}", False, f"could not be repaired: {error}")
    lost = "; ".join(done.damage[:MAX_LINES]) or "nothing"
    return Check(f"run {run.id}", True, f"repaired, {done.num_points} points kept; lost: {lost}; before: {done.kept}")


COMMANDS = ((doctor, example("trainvitals doctor", "trainvitals doctor --store experiments/ --repair")),)
