"""Connections to run files: one that writes, many that only read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainvitals.store.codec import DamagedError
from trainvitals.store.errors import NewerSchemaError, StoreError
from trainvitals.store.fragments import SUFFIX as LOG_SUFFIX
from trainvitals.store.fragments import reading_log
from trainvitals.store.migrations import MIGRATIONS, check_version, migrate, version_of
from trainvitals.store.schema_sql import APPLICATION_ID

OPENING_SECONDS = 1.0  # a log that is being made or removed beside us is gone or there in milliseconds
BUSY_SECONDS = 5.0  # a writer holds its lock for one flush; recovery of a killed run's log takes no longer


def connect_writer(path: Path) -> sqlite3.Connection:
    """Return the read-write connection to a run file, in WAL mode and autocommit.

    `synchronous=FULL`: what a flush acknowledged survives a power cut too; the wait for the disk is
    on the writer's thread and holds no lock of Python's.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    _enter_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    return connection


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL, again and again while SQLite answers "locked": it does not wait for one that does the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                connection.close()
                raise
            time.sleep(0.02)


def leave_wal(connection: sqlite3.Connection) -> bool:
    """Fold the log into the file, so that it opens from a read-only folder; False while readers hold it."""
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0] == "delete"
    except sqlite3.OperationalError:
        return False


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a run read-only for one short transaction and check that it is ours.

    A file of an older version is brought to the newest in memory; the file stays as it is.

    Raises:
        StoreError: if the file is missing, corrupt, of another program or of a newer version.
    """
    path = present(path)
    if path.suffix == LOG_SUFFIX:
        with _reading_log(path) as connection:
            yield connection
        return
    connection, scratch = _connect_reader(path)
    try:
        if version_of(connection) < len(MIGRATIONS):
            connection = _brought_up_to_date(connection, path)
        yield connection
    except NewerSchemaError:
        raise
    except (sqlite3.DatabaseError, DamagedError, UnicodeDecodeError) as error:
        raise _unreadable(path, f"it is damaged ({type(error).__name__}: {error})") from error
    finally:
        connection.close()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def present(path: Path) -> Path:
    """Return the path of a run now: a log on a network becomes a plain file when the run ends."""
    if path.suffix == LOG_SUFFIX and not os.path.exists(path) and os.path.exists(path.with_suffix(".sqlite")):
        return path.with_suffix(".sqlite")
    return path


@contextmanager
def _reading_log(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with reading_log(path) as (connection, _):
            yield connection
    except (OSError, sqlite3.DatabaseError) as error:
        raise _unreadable(path, str(error)) from error


def _brought_up_to_date(old: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Return a migrated copy in memory."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        old.backup(copy)
        migrate(copy, str(path))
    except BaseException:
        copy.close()
        raise
    finally:
        old.close()
    return copy


def _connect_reader(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    """Return a checked connection, and the folder of a copy if one had to be made.

    While a writer opens, closes or recovers the log, SQLite may answer "locked" or "cannot open" for
    a moment: that is tried again. A folder that cannot be written has no room for the log's index:
    without a log the file is opened as immutable, with one a copy of both is read.
    """
    try:
        kind = path.stat().st_mode
    except OSError as error:  # it is gone, or a folder above it may not be entered any more
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror).lower()
        raise _unreadable(path, reason) from error
    if not stat.S_ISREG(kind):
        raise _unreadable(path, "not a file")
    deadline = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            return _checked(path, f"{path.absolute().as_uri()}?mode=ro"), None
        except sqlite3.OperationalError as error:
            if not os.access(path, os.R_OK):
                raise _unreadable(path, "permission denied") from error
            if not os.access(path.parent, os.W_OK):
                return _connect_in_read_only_folder(path)
            if time.monotonic() > deadline:
                raise _unreadable(path, str(error)) from error
            time.sleep(0.02)
        except sqlite3.DatabaseError as error:
            raise _unreadable(path, str(error)) from error


def _connect_in_read_only_folder(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    log = path.with_name(path.name + "-wal")
    try:
        if not log.exists() or log.stat().st_size == 0:
            return _checked(path, f"{path.absolute().as_uri()}?immutable=1"), None
        scratch = Path(tempfile.mkdtemp(prefix="trainvitals-"))
        for file in (path, log):
            shutil.copy(file, scratch / file.name)
        return _checked(scratch / path.name, f"{(scratch / path.name).as_uri()}?mode=ro"), scratch
    except (OSError, sqlite3.DatabaseError) as error:
        raise _unreadable(path, str(error)) from error


def _checked(path: Path, address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _allow_cut_file(connection)
        connection.execute("BEGIN")  # with the next statement: all calls on this connection see one moment
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise _unreadable(path, "a SQLite file of another program" if path.stat().st_size else "the file is empty")
        check_version(connection, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _allow_cut_file(connection: sqlite3.Connection) -> None:
    """Let a file be read that is shorter than it says: SQLite refuses all of it otherwise.

    What the pragma allows besides, changes of the schema, a connection that only reads cannot make.
    """
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        connection.execute("PRAGMA writable_schema = ON")


def _unreadable(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"expected a TrainVitals run file, got {path} that cannot be read: {reason}; "
        f"check the path and its permissions, or move the file out of the store"
    )
