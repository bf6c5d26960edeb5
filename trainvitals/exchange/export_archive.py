"""A run as one folder that opens elsewhere: the run file, whole and closed, and what it should be.

The folder is a store with one run in it: `tv.open_run(folder)`, `trainvitals ui --store folder`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import trainvitals
from trainvitals.exchange.export_table import new_folder
from trainvitals.run import MANIFEST, Run
from trainvitals.store.database import leave_wal, reading
from trainvitals.store.postgres_address import is_address

FORMAT = "trainvitals-archive"
README = """A TrainVitals run: {name}

Open it:      python -c "import trainvitals as tv; print(tv.open_run('THIS FOLDER').names())"
See it:       trainvitals ui --store 'THIS FOLDER'
Check it:     manifest.json has the SHA-256 of every file
"""


def export_archive(run: Run, to: str | os.PathLike[str], store: Any = None) -> Path:
    """Write a run into a new folder and return it; the folder appears whole or not at all.

    Args:
        run: to export, live or not: then what is committed at this moment.
        to: the folder; new or empty.
        store: where the run is, if that is a database.

    Raises:
        StoreError: if something is there already, or the run cannot be read.
    """
    with new_folder(to) as folder:
        file = folder / f"{run.id}.sqlite"
        if is_address(store):
            from trainvitals.store.fetching import fetch

            fetch(store, run.id, file)
        else:
            _copy(Path(run.path), file)
        os.chmod(file, 0o600)
        (folder / "README.txt").write_text(README.format(name=run.name.encode("unicode_escape").decode()), "utf-8")
        (folder / MANIFEST).write_text(json.dumps(_manifest(run, folder), indent=1), "utf-8")
    return Path(to)


def _copy(path: Path, to: Path) -> None:
    """Copy what is committed, beside a writer too, into a file without a log."""
    os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with reading(path) as source, contextlib.closing(sqlite3.connect(to, isolation_level=None)) as copy:
        source.backup(copy)
        leave_wal(copy)


def _manifest(run: Run, folder: Path) -> dict[str, Any]:
    files = {
        file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
        for file in sorted(folder.iterdir())
    }
    return {"format": FORMAT, "version": 1, "run": run.id, "name": run.name, "made": time.time(),
            "trainvitals": trainvitals.__version__, "files": files}  # fmt: skip
