"""Weights & Biases' offline runs: `run-*.wandb` files, read without the wandb package.

Such a file is a log in the format of LevelDB (blocks of 32 KiB, records cut at their ends, each piece with
its CRC-32) behind seven bytes of its own; a record is a protocol-buffer message of
`wandb_internal.proto`, of which only the fields named here are read. Checked with wandb 0.31.0.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainvitals.exchange.histograms import density_of, describe_histogram
from trainvitals.exchange.protobuf_fields import Value, as_double, as_text, fields, signed
from trainvitals.exchange.recording import FoundRun
from trainvitals.schema import Reading, Record, Status
from trainvitals.store.errors import StoreError

BLOCK = 32 * 1024
PREFIX = struct.Struct("<4sHB")  # ":W&B", a magic number, a version
PIECE = struct.Struct("<IHB")  # CRC-32 of kind and data, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
HISTORY, CONFIG, RUN, EXIT = 2, 5, 17, 18  # fields of Record
DAMAGED = "damaged or unfinished record at the end"


def find_wandb(path: str | os.PathLike[str]) -> list[FoundRun]:
    """Return the offline runs below a folder, or the run of one `.wandb` file.

    Raises:
        StoreError: if there is none, or a file is none of them.
    """
    top = Path(path)
    files = [top] if top.is_file() else sorted(top.rglob("*.wandb"))
    if not files:
        raise StoreError(
            f"expected a folder with .wandb files, got {str(path)!r} in import wandb; "
            "give the folder wandb/ of a run with WANDB_MODE=offline"
        )
    return [_found(file) for file in files]


def _found(file: Path) -> FoundRun:
    about = _about(file)
    found = FoundRun(
        name=about.get("name") or file.stem.removeprefix("run-"),
        program="Weights & Biases",
        records=(),
        started=about.get("started"),
        config=about["config"],
        tags=tuple(about["tags"]),
        note=about.get("note", ""),
        status=Status.FINISHED if about.get("exit_code", 0) == 0 else Status.CRASHED,
    )
    found.records = _records(file, found)
    return found


def _about(file: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"config": {}, "tags": []}
    for record in log_records(file):
        for number, value in fields(record):
            if number == RUN and isinstance(value, bytes):
                _read_run(value, about)
            elif number == CONFIG and isinstance(value, bytes):
                about["config"].update(_config(value))
            elif number == EXIT and isinstance(value, bytes):
                about["exit_code"] = next((signed(v) for n, v in fields(value) if n == 1), 0)
    about["config"].pop("_wandb", None)
    return about


def _read_run(message: bytes, about: dict[str, Any]) -> None:
    """Read a RunRecord: 4 config, 8 display name, 9 notes, 10 tags, 17 start time."""
    for number, value in fields(message):
        if number == 4 and isinstance(value, bytes):
            about["config"].update(_config(value))
        elif number == 8:
            about["name"] = as_text(value)
        elif number == 9:
            about["note"] = as_text(value)
        elif number == 10:
            about["tags"].append(as_text(value))
        elif number == 17 and isinstance(value, bytes):
            parts = dict(fields(value))  # Timestamp: 1 seconds, 2 nanoseconds
            about["started"] = signed(parts.get(1, 0)) + signed(parts.get(2, 0)) * 1e-9


def _config(message: bytes) -> dict[str, Any]:
    """Read a ConfigRecord: 1 is an item to set, with 1 key, 2 nested key, 16 value as JSON."""
    config: dict[str, Any] = {}
    for number, value in fields(message):
        if number != 1 or not isinstance(value, bytes):
            continue
        key, parsed = _item(value)
        config[key] = parsed["value"] if isinstance(parsed, dict) and set(parsed) == {"value"} else parsed
    return config


def _item(message: bytes) -> tuple[str, Any]:
    """Return key and value of an item; the typed values 4 to 8 are those of newer histories."""
    key, nested, parsed = "", [], None
    for number, value in fields(message):
        if number == 1:
            key = as_text(value)
        elif number == 2:
            nested.append(as_text(value))
        elif number in (8, 16):
            parsed = _json(value)
        else:
            parsed = _typed(number, value, parsed)
    return key or ".".join(nested), parsed


def _typed(number: int, value: Value, otherwise: Any) -> Any:
    if number == 4:
        return bool(value)
    if number == 5:  # sint64: zigzag
        return (value >> 1) ^ -(value & 1) if isinstance(value, int) else None
    if number == 6:
        return as_double(value)
    return as_text(value) if number == 7 else otherwise


def _json(value: Value) -> Any:
    try:
        return json.loads(as_text(value))  # NaN and Infinity as Python's json has them
    except ValueError:
        return as_text(value)


def _records(file: Path, found: FoundRun) -> Iterator[Record]:
    """Yield the history."""
    for record in log_records(file, found.left_out):
        for number, value in fields(record):
            if number == HISTORY and isinstance(value, bytes):
                one = _history(value, found)
                if one is not None:
                    yield one


def _history(message: bytes, found: FoundRun) -> Record | None:
    """Read a HistoryRecord: 1 are the items, 2 the step."""
    step, items = None, {}
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            key, parsed = _item(value)
            items[key] = parsed
        elif number == 2 and isinstance(value, bytes):
            step = signed(dict(fields(value)).get(1, 0))
    step = items.pop("_step", step)
    time = items.pop("_timestamp", 0.0)
    items.pop("_runtime", None)
    scalars: dict[str, float] = {}
    readings = _take_histograms(items)
    for name in readings:
        found.descriptions.setdefault(name, describe_histogram(name, found.program))
    for key, value in items.items():
        numbers = dict(_numbers(key, value))
        scalars |= numbers
        if not numbers:
            kind = value.get("_type", "table") if isinstance(value, Mapping) else type(value).__name__
            found.left_out[str(kind)] = found.left_out.get(str(kind), 0) + 1
    return Record(int(step or 0), float(time), readings, scalars) if scalars or readings else None


def _take_histograms(items: dict[str, Any]) -> dict[str, Reading]:
    """Take the histograms out of the items: `bins` are the k + 1 edges, `values` the k counts, nested or flat."""
    found: dict[str, Reading] = {}
    for key in list(items):
        if key.endswith("._type") and items[key] == "histogram":
            name = key.removesuffix("._type")
            parts = {part: items.pop(f"{name}.{part}", None) for part in ("_type", "bins", "values")}
        elif isinstance(items.get(key), Mapping) and items[key].get("_type") == "histogram":
            name, parts = key, items.pop(key)
        else:
            continue
        edges, counts = (np.asarray(parts.get(part) or [], np.float64) for part in ("bins", "values"))
        reading = density_of(np.stack([edges[:-1], edges[1:], counts], 1)) if len(edges) == len(counts) + 1 else None
        if reading is not None:
            found[name] = reading
    return found


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a logged value; those of nested mappings under OUTER.INNER."""
    if isinstance(value, (bool, int, float)) or value in ("NaN", "Infinity", "-Infinity"):
        yield key, float(value)
    elif isinstance(value, Mapping) and "_type" not in value:
        for inner, item in value.items():
            yield from _numbers(f"{key}.{inner}", item)


def log_records(file: Path, left_out: dict[str, int] | None = None) -> Iterator[bytes]:
    """Yield the records of a log; a piece that is damaged or was cut off ends it, and is counted.

    Raises:
        StoreError: if the file is not one of wandb's.
    """
    with open(file, "rb") as log:
        prefix = log.read(PREFIX.size)
        if len(prefix) < PREFIX.size or PREFIX.unpack(prefix)[0] != b":W&B":
            raise StoreError(f"expected a .wandb file, got {str(file)!r} that is none in import wandb; give another")
        at, parts = PREFIX.size, b""
        while True:
            room = BLOCK - at % BLOCK
            if room < PIECE.size:  # too short for a header: filled with zeros
                log.read(room)
                at += room
                continue
            header = log.read(PIECE.size)
            if not header:
                return
            if len(header) < PIECE.size:
                break
            crc, length, kind = PIECE.unpack(header)
            data = log.read(length)
            at += PIECE.size + length
            if len(data) < length or kind not in (FULL, FIRST, MIDDLE, LAST) or crc != _crc(kind, data):
                break
            parts = data if kind in (FULL, FIRST) else parts + data
            if kind in (FULL, LAST):
                yield parts
    if left_out is not None:
        left_out[DAMAGED] = left_out.get(DAMAGED, 0) + 1


def _crc(kind: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(bytes([kind])))
