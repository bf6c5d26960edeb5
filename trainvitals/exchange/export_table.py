"""All points of a run as one long table: Parquet, CSV or JSON lines.

A row is one number: of one metric, at one step, under one key. What a column holds is in COLUMNS, in
`docs/export.md` and in the metadata of the Parquet file. A null is a number that was never there; a NaN
is a NaN that was measured.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from trainvitals.run import Run
from trainvitals.store.errors import StoreError

COLUMNS = {
    "run": "id of the run",
    "metric": "name of the metric",
    "step": "step of the optimiser at which it was measured",
    "time": "when, in seconds since 1970-01-01 UTC",
    "key": "layer, class or number within an array; empty for a plain number",
    "value": "the number; null where the metric was undefined, NaN where a NaN was measured",
    "error": "its standard error or residual bound; null where none is stated",
    "converged": "whether the iteration converged; null where there is none",
    "seconds": "what the measurement took",
    "missing": "why the metric was undefined; null where it was not",
}
POINTS_PER_PART = 500_000  # held in memory at once, of each column
_FORMULA = tuple("=+-@＝＋－＠\t\r")  # OWASP, "CSV Injection"


def export_table(run: Run, to: str | os.PathLike[str], format: str | None = None, *, overwrite: bool = False) -> int:
    """Write all points of a run to a file and return how many rows it has.

    The file appears whole or not at all, and only its owner may read it.

    Args:
        run: to export.
        to: the file.
        format: "parquet", "csv" or "jsonl"; by the file's ending if left out.
        overwrite: a file that is there.

    Raises:
        StoreError: for another format, a file that is there, or if pyarrow is not installed.
    """
    path = Path(to)
    kind = format or path.suffix.removeprefix(".").lower()
    if kind not in WRITERS:
        raise StoreError(
            f"expected a file that ends in .{', .'.join(WRITERS)}, got {str(to)!r} in export_table; "
            "rename it, give the format, or name a folder for an archive"
        )
    if path.exists() and not overwrite:
        raise StoreError(
            f"expected a file that is not there yet, got {str(to)!r} in export_table; give another, or overwrite=True"
        )
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        num_rows = WRITERS[kind](run, hidden)
        os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    return num_rows


def parts_of(run: Run) -> Iterator[pd.DataFrame]:
    """Return the table in parts, one metric after the other, in order of steps."""
    num_points, last_step = run.num_points, run.last_step or 0
    num_parts = max(1, math.ceil(num_points / POINTS_PER_PART))
    width = max(1, math.ceil((last_step + 1) / num_parts))
    edges: list[int | None] = [None, *range(width, last_step + 1, width), None]
    for name in run.names():
        missing = run.missing(name)
        for start, stop in pairwise(edges):
            part = _part(run, name, missing, start, stop)
            if len(part):
                yield part


def _part(run: Run, name: str, missing: pd.DataFrame, start: int | None, stop: int | None) -> pd.DataFrame:
    points = run.series(name, start, stop)
    low = missing["step"] >= start if start is not None else np.ones(len(missing), bool)
    high = missing["step"] < stop if stop is not None else np.ones(len(missing), bool)
    absent = missing.loc[low & high]
    has_value = np.concatenate([np.ones(len(points), bool), np.zeros(len(absent), bool)])
    none = np.full(len(absent), np.nan)
    table = pd.DataFrame({
        "run": _objects(np.full(len(has_value), run.id, object)),
        "metric": _objects(np.full(len(has_value), name, object)),
        "step": np.concatenate([points["step"], absent["step"]]).astype(np.int64),
        "time": np.concatenate([points["time"], absent["time"]]).astype(np.float64),
        "key": _objects(points["key"].to_numpy(object), np.full(len(absent), "", object)),
        "value": np.concatenate([points["value"], none]),
        "error": np.concatenate([points["error"], none]),
        "converged": _objects(points["converged"].to_numpy(object), np.full(len(absent), None, object)),
        "seconds": np.concatenate([points["seconds"], np.zeros(len(absent))]),
        "missing": _objects(np.full(len(points), None, object), absent["reason"].to_numpy(object)),
        "has_value": has_value,
    })  # fmt: skip
    return table.sort_values("step", kind="stable", ignore_index=True) if len(absent) else table


def _objects(*parts: np.ndarray) -> pd.Series:
    """Return a column of objects as they are: pandas would guess a type, and make NaN of None."""
    return pd.Series(np.concatenate(parts), dtype=object)


def _to_parquet(run: Run, path: Path) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise StoreError(
            f"expected pyarrow for Parquet, got {error} in export_table; install it: pip install 'trainvitals[parquet]'"
        ) from error
    types = {"run": pa.string(), "metric": pa.string(), "step": pa.int64(), "time": pa.float64(), "key": pa.string(),
             "value": pa.float64(), "error": pa.float64(), "converged": pa.bool_(), "seconds": pa.float64(),
             "missing": pa.string()}  # fmt: skip
    fields = [pa.field(name, types[name], metadata={"description": words}) for name, words in COLUMNS.items()]
    schema = pa.schema(fields, metadata={f"trainvitals.{key}": value for key, value in about(run).items()})
    num_rows = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in parts_of(run):
            absent = ~part["has_value"].to_numpy()
            arrays = [
                pa.array(part[name].to_numpy(), type=types[name], mask=mask, from_pandas=False)
                if (mask := {"value": absent, "error": part["error"].isna().to_numpy()}.get(name)) is not None
                else pa.array(part[name].tolist(), type=types[name])
                for name in COLUMNS
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            num_rows += len(part)
    return num_rows


def about(run: Run) -> dict[str, str]:
    """Return what is known of a run and its metrics as texts of JSON."""
    descriptions = {name: dataclasses.asdict(words) for name, words in run.descriptions.items()}
    facts = {"id": run.id, "name": run.name, "started": run.started, "status": str(run.status)}
    return {"run": json.dumps(facts), "meta": json.dumps(run.meta), "descriptions": json.dumps(descriptions)}


def _to_csv(run: Run, path: Path) -> int:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        return _rows(run, lambda row: writer.writerow([csv_cell(value) for value in row]))


def csv_cell(value: Any) -> Any:
    """Return a cell that starts no formula and controls nothing; empty for None.

    >>> csv_cell("=cmd()"), csv_cell(-1.5), csv_cell(None)
    ("'=cmd()", -1.5, '')
    """
    if not isinstance(value, str):
        return "" if value is None else value
    text = "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in value
    )
    return f"'{text}" if value.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def _to_jsonl(run: Run, path: Path) -> int:
    with open(path, "w", encoding="utf-8") as file:
        return _rows(run, lambda row: _write_line(file, row))


def _write_line(file: IO[str], row: list[Any]) -> None:
    plain = [_json_number(v) if isinstance(v, float) else v for v in row]
    file.write(json.dumps(dict(zip(COLUMNS, plain, strict=True)), allow_nan=False) + "\n")


def _json_number(value: float) -> float | str:
    """Return a number as strict JSON has it; NaN and the infinities are words, as `trainvitals get --json` has them."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _rows(run: Run, write: Callable[[list[Any]], object]) -> int:
    num_rows = 0
    at_value, at_error = list(COLUMNS).index("value"), list(COLUMNS).index("error")
    for part in parts_of(run):
        columns = [part[name].tolist() for name in COLUMNS]
        for *row, has_value in zip(*columns, part["has_value"].tolist(), strict=True):
            row[at_value] = row[at_value] if has_value else None
            row[at_error] = None if row[at_error] != row[at_error] else row[at_error]
            write(row)
            num_rows += 1
    return num_rows


WRITERS: dict[str, Callable[[Run, Path], int]] = {"parquet": _to_parquet, "csv": _to_csv, "jsonl": _to_jsonl}


@contextlib.contextmanager
def new_folder(to: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a hidden folder that becomes `to` if all goes well, and is removed otherwise.

    Raises:
        StoreError: if something is there already.
    """
    path = Path(to)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"expected a new or an empty folder, got {str(to)!r} in export; name another one")
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    hidden.mkdir(mode=0o700)
    try:
        yield hidden
        if path.exists():
            path.rmdir()
        os.replace(hidden, path)
    except BaseException:
        for file in hidden.glob("*"):
            file.unlink(missing_ok=True)
        hidden.rmdir()
        raise
