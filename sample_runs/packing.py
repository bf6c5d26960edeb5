"""Make a run a recording that is shipped: small, and without the name of the machine that made it.

For those who work on the samples; nobody else needs it.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import trainvitals as tv
from trainvitals.sample_runs.catalogue import RECORDED, Sample
from trainvitals.store.rows import checksum_of


def pack(sample: Sample, arm: str, run: tv.Run) -> Path:
    """Keep a copy of a run as the recording of an arm, and return its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.sqlite"
        with closing(sqlite3.connect(run.path)) as source, closing(sqlite3.connect(path)) as copy:
            source.backup(copy)
            forget_machine(copy, sample)
            copy.execute("PRAGMA journal_mode=DELETE")
            copy.execute("VACUUM")
        packed = RECORDED / sample.name / f"{arm}.sqlite.gz"
        packed.parent.mkdir(parents=True, exist_ok=True)
        packed.write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
    return packed


def forget_machine(run: sqlite3.Connection, sample: Sample) -> None:
    """Take out the host, the process, the kernel and the command; versions and settings stay."""
    (text,) = run.execute("SELECT value FROM header WHERE key = 'meta'").fetchone()
    meta = json.loads(text)
    meta |= {"command": ["trainvitals", "sample", sample.name], "program": "trainvitals"}
    meta["environment"] |= {"platform": "", "git": {}}
    for row in (("meta", json.dumps(meta)), ("process", "{}")):
        key, value = row
        run.execute("UPDATE header SET value = ?, crc = ? WHERE key = ?", (value, checksum_of("header", row), key))
    run.commit()
