"""A run on a network file system: one file that only grows, in blocks with checksums.

SQLite needs locks and shared memory that network file systems do not give. So the writer keeps its
SQLite file on the local disk and appends every transaction's changes, before they are committed, to
a log in the store; a reader makes the same changes in a database of its own, from where it stopped
last time. A block that is torn or damaged costs what is in it: the ids and keys in the others do not
depend on it. When the run ends the log is replaced by an ordinary run file.

A block is: eight letters, the length of its content, the content's CRC-32, the content.
"""

from __future__ import annotations

import io
import os
import sqlite3
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainvitals.store.codec import DamagedError
from trainvitals.store.errors import StoreError
from trainvitals.store.migrations import migrate
from trainvitals.store.rows import COLUMNS, PUT, Row, make_change

SUFFIX = ".fragments"
MAX_REPLAYS = 64  # logs of which a reader keeps its database
_LETTERS = b"TrVtFr1\n"
_HEAD = struct.Struct("<8sII")
_CHANGE = struct.Struct("<BBI")  # kind, place of the table in COLUMNS, rows
_LENGTH = struct.Struct("<I")
_INT, _FLOAT = struct.Struct("<q"), struct.Struct("<d")
_TABLES = tuple(COLUMNS)

Change = tuple[int, str, list[Row]]


def encode_changes(changes: Sequence[Change]) -> bytes:
    """Return the changes of one transaction as a block."""
    out = io.BytesIO()
    for kind, table, rows in changes:
        out.write(_CHANGE.pack(kind, _TABLES.index(table), len(rows)))
        for row in rows:
            out.write(bytes([len(row)]))
            for value in row:
                _write_value(out, value)
    content = out.getvalue()
    return _HEAD.pack(_LETTERS, len(content), zlib.crc32(content)) + content


def _write_value(out: io.BytesIO, value: Any) -> None:
    if value is None:
        out.write(b"n")
    elif isinstance(value, int):
        out.write(b"i" + _INT.pack(value))
    elif isinstance(value, float):
        out.write(b"f" + _FLOAT.pack(value))
    else:
        data = value.encode() if isinstance(value, str) else bytes(value)
        out.write((b"t" if isinstance(value, str) else b"b") + _LENGTH.pack(len(data)) + data)


def decode_changes(content: bytes) -> list[Change]:
    """Return the changes in the content of a block.

    Raises:
        DamagedError: if it holds anything else.
    """
    try:
        data = io.BytesIO(content)
        changes: list[Change] = []
        while head := data.read(_CHANGE.size):
            kind, table, num_rows = _CHANGE.unpack(head)
            rows = [tuple(_read_value(data) for _ in range(data.read(1)[0])) for _ in range(num_rows)]
            changes.append((kind, _TABLES[table], rows))
        return changes
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DamagedError(f"a block of changes is not one of this version ({error})") from error


def _read_value(data: io.BytesIO) -> Any:
    kind = data.read(1)
    if kind == b"n":
        return None
    if kind == b"i":
        return _INT.unpack(data.read(8))[0]
    if kind == b"f":
        return _FLOAT.unpack(data.read(8))[0]
    if kind not in (b"t", b"b"):
        raise IndexError(f"no kind of value is {kind!r}")
    content = data.read(*_LENGTH.unpack(data.read(4)))
    return content.decode() if kind == b"t" else content


def read_blocks(data: bytes, is_end: bool = False) -> Iterator[tuple[int, bytes | None]]:
    """Return (position behind it, content) of the blocks in what was read of a log.

    Content None stands for bytes that are no block, or one whose checksum differs. The last block may still
    be on its way: it is left for the next time.
    """
    at = 0
    while at + _HEAD.size <= len(data):
        letters, length, crc = _HEAD.unpack_from(data, at)
        stop = at + _HEAD.size + length
        if letters == _LETTERS and stop <= len(data) and zlib.crc32(content := data[at + _HEAD.size : stop]) == crc:
            yield stop, content
            at = stop
            continue
        following = data.find(_LETTERS, at + 1)
        if following < 0:  # torn, or not written yet
            return
        yield following, None
        at = following


class FragmentLog:
    """The writer's end of a log.

    Args:
        path: of the log.
        size: of what is in it already; 0 makes the file.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | (0 if size else os.O_CREAT | os.O_EXCL)
        self._file = os.open(path, flags, 0o600)
        self._size = size

    def append(self, changes: Sequence[Change]) -> None:
        """Write one block and wait until it is on the disk.

        Raises:
            StoreError: if another process has appended to the log: this one must not.
            OSError: if it cannot be written; what was written of it is no block.
        """
        if os.fstat(self._file).st_size != self._size:
            raise StoreError(
                f"expected to be the only process that writes {self.path}, got another's blocks in it; "
                "this process stops writing it"
            )
        data = encode_changes(changes)
        try:
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
            self._size += len(data)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise

    def close(self) -> None:
        """Let the file go."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Replay:
    """A reader's database of a log, brought up to date when it is asked for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = 0  # of what has been replayed
        self.damage: list[str] = []
        self._connection: sqlite3.Connection | None = None

    def catch_up(self, path: Path) -> sqlite3.Connection:
        """Return the database with all that is in the log now.

        Raises:
            StoreError: if the log cannot be read or was made by a newer version.
        """
        if self._connection is None or path.stat().st_size < self.size:
            self.close()
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a temporary file
            migrate(self._connection, str(path))
        with path.open("rb") as file:
            file.seek(self.size)
            data = file.read()
        start = self.size
        for stop, content in read_blocks(data):
            if content is None:
                self.damage.append(f"bytes {self.size} to {start + stop} are no intact block")
            else:
                self._replay(self._connection, content)
            self.size = start + stop
        return self._connection

    def _replay(self, connection: sqlite3.Connection, content: bytes) -> None:
        connection.execute("BEGIN")
        try:
            for kind, table, rows in decode_changes(content):
                make_change(connection, kind, table, rows)
        except (DamagedError, sqlite3.Error, KeyError) as error:
            connection.execute("ROLLBACK")
            self.damage.append(f"a block cannot be read: {error}")
            return
        connection.execute("COMMIT")

    def close(self) -> None:
        """Forget what was replayed."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self.size, self.damage = None, 0, []


_replays: OrderedDict[tuple[str, int], Replay] = OrderedDict()
_replays_lock = threading.Lock()


@contextmanager
def reading_log(path: Path) -> Iterator[tuple[sqlite3.Connection, list[str]]]:
    """Open a log for one moment: its database, and what is damaged in it, in words."""
    replay = _replay_of(path)
    with replay.lock:
        yield replay.catch_up(path), list(replay.damage)


def _replay_of(path: Path) -> Replay:
    key = os.fspath(path.absolute()), path.stat().st_ino
    with _replays_lock:
        replay = _replays.setdefault(key, Replay())
        _replays.move_to_end(key)
        while len(_replays) > MAX_REPLAYS:
            _replays.popitem(last=False)
        return replay


def damage_of_log(path: Path) -> list[str]:
    """Return what was damaged in a log as it was last read, in words; empty for a file that is none."""
    return list(_replay_of(path).damage) if path.suffix == SUFFIX else []


def whole_table(connection: sqlite3.Connection, table: str) -> Change:
    """Return the change that puts all rows of a table in place: how a log begins."""
    rows = connection.execute(f"SELECT {', '.join(COLUMNS[table])} FROM {table}").fetchall()
    return PUT, table, rows
