"""Labels of readers who disagree with a verdict: kept in a file of theirs, so the dashboard writes to no store."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from trainvitals.schema import Verdict

LABELS = ("healthy", "watch", "alarm", "something else")
MAX_NOTE = 500  # characters
MAX_BYTES = 2**20  # of the file: a page that strangers reach cannot fill a disk


def path() -> Path:
    """Return the file: `trainvitals/disagreements.jsonl` in the user's data folder ($XDG_DATA_HOME)."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "trainvitals" / "disagreements.jsonl"


def keep(run: str, step: int | None, verdict: Verdict, label: str, note: str) -> Path:
    """Add a line with the run, the step, the verdict as it stood, and the reader's label. Returns the file.

    Raises:
        OSError: if it cannot be written, or has grown to 1 MiB.
    """
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > MAX_BYTES:
        raise OSError(f"{file} has grown to 1 MiB; move it away")
    line = json.dumps({"time": time.time(), "run": run, "step": step, "condition": verdict.condition,
                       "state": verdict.state, "since": verdict.since, "label": label if label in LABELS else "",
                       "note": note[:MAX_NOTE]})  # fmt: skip
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as out:
        out.write(line + "\n")
    return file
