"""A run that goes on: found in its store, opened for writing, its step axis continued."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainvitals.schema import Description
from trainvitals.store.catalogue import SUFFIXES, list_folder
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_address import is_address
from trainvitals.store.shipped_writer import DEFAULT_SPOOL, SPOOL_VARIABLE, ShippedWriter, create_writer
from trainvitals.store.source import open_file
from trainvitals.store.writer import RunWriter


@dataclass(frozen=True)
class Begun:
    """A run that is being written: a new one, or one that goes on."""

    writer: RunWriter | ShippedWriter
    name: str
    step: int = 0  # at which it begins, or goes on
    tags: tuple[str, ...] = ()
    note: str = ""


def begin(store: Any, name: str, meta: Mapping[str, Any], descriptions: Mapping[str, Description], *,
          resume: Any = None, step: int | None = None) -> Begun:  # fmt: skip
    """Begin a run, or go on with one.

    Args:
        store: a folder or a PostgreSQL address.
        name: of a new run.
        meta: what is known of the run, or of this part of it.
        descriptions: of the metrics to come.
        resume: None for a new run; or the path, the id, the beginning of one or the name of a run, or "latest".
        step: at which a run goes on; where it ended if left out.

    Raises:
        StoreError: if the store cannot be written, no run answers to `resume`, or another process writes it.
    """
    if resume is None:
        if step is not None:
            raise StoreError(
                f"expected resume_step together with resume, got {step} alone in watch; say which run goes on"
            )
        return Begun(create_writer(store, name, meta, descriptions), name)
    folder = (os.environ.get(SPOOL_VARIABLE) or DEFAULT_SPOOL) if is_address(store) else store
    path = find(getattr(resume, "path", resume), folder)
    writer = RunWriter.resume(path, descriptions, step=step, meta=meta)
    with open_file(writer.path) as source:
        header = source.header()
    found = ShippedWriter(writer, store) if is_address(store) else writer
    return Begun(found, header.name, writer.resumed_at, header.tags, header.note)


def find(wanted: Any, folder: str | os.PathLike[str]) -> Path:
    """Return the file of a run by its path, its id, the beginning of one, its name, or "latest".

    Raises:
        StoreError: if no run, or more than one, answers to it.
    """
    path = Path(wanted)
    if path.suffix in SUFFIXES:
        return path
    runs = [run for run in list_folder(folder) if run.problem is None]
    named = runs[:1] if wanted == "latest" else [run for run in runs if wanted in (run.id, run.name)][:1]
    begun = named or [run for run in runs if wanted and run.id.startswith(str(wanted))]
    if len(begun) == 1:
        return Path(begun[0].path)
    newest = f"the newest there is {runs[0].id}" if runs else "no readable run is there"
    there = f"{len(begun)} runs answer to it" if begun else newest
    raise StoreError(
        f"expected a run's path, id, the beginning of one, its name or 'latest', got {str(wanted)!r} in "
        f"{os.fspath(folder)!r} in watch(resume=...); {there}"
    )
