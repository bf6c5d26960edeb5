"""What every benchmark ends with: the machine in words, a table on screen, and results in a folder."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Return the machine in words: cores, memory, versions; no names."""
    gib = psutil.virtual_memory().total / 2**30
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{os.cpu_count()} cores, {gib:.0f} GiB{device}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} torch thread(s)"
    )


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return the median with the smallest and the largest value: `1.02 (0.98–1.07)`."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}g} ({low:.{digits}g}–{high:.{digits}g})"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table; the first row gives the columns."""
    columns = list(rows[0])
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row.get(column, "")) for column in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def write(name: str, title: str, rows: Sequence[Mapping[str, Any]], notes: Sequence[str], raw: Any = None) -> None:
    """Print the table and write `results/NAME.md` and `results/NAME.json`."""
    today = datetime.date.today().isoformat()
    text = "\n\n".join([f"# {title}", f"{today}. {machine()}.", table(rows), *notes]) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    content = {"date": today, "machine": machine(), "rows": list(rows), "notes": list(notes), "raw": raw}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
