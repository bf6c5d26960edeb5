"""Tags and notes of runs that are over, or that are in a database."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainvitals.run import Run, open_run
from trainvitals.store.errors import StoreError
from trainvitals.store.interning import clean
from trainvitals.store.opening import editing
from trainvitals.store.postgres_address import is_address, shown
from trainvitals.store.tagging import add_note, add_tags, remove_tags


def tag_run(run: str, store: str | os.PathLike[str], add: Sequence[str] = (), remove: Sequence[str] = ()) -> list[str]:
    """Give a run tags or take some away, and return those that it has then.

    A run in a folder must be over: while it goes on, its trainer alone writes it, by `run.tag(...)`.

    Raises:
        StoreError: if there is no such run, it is being written, or a tag is no short text.
    """
    return _changed(run, store, "tags", lambda now: add_tags(remove_tags(now.tags, remove), add))


def note_run(run: str, store: str | os.PathLike[str], text: str) -> str:
    """Add a line to the note of a run and return the whole note.

    Raises:
        StoreError: if there is no such run, it is being written, or the note is empty or too long.
    """
    return _changed(run, store, "note", lambda now: add_note(now.note, text))


def _changed(run: str, store: str | os.PathLike[str], key: str, change: Callable[[Run], Any]) -> Any:
    found = open_run(run, store)
    if is_address(store):
        return _changed_in_database(found, str(store), key, change)
    with editing(Path(found.path)) as rows:
        value = change(found)  # nobody else writes from here on
        rows.put("header", (key, clean(json.dumps(value))))
    return value


def _changed_in_database(found: Run, address: str, key: str, change: Callable[[Run], Any]) -> Any:
    import psycopg

    from trainvitals.store.postgres_connection import failure
    from trainvitals.store.postgres_source import edit_header
    from trainvitals.store.shipping import ready_connection

    value = change(found)
    with ready_connection(address) as connection:
        try:
            edit_header(connection, found.id, {key: value})
        except psycopg.errors.InsufficientPrivilege:
            raise StoreError(
                f"expected a role that may write, got a refusal from {shown(address)} for {found.id}; "
                "use a member of trainvitals_writer"
            ) from None
        except psycopg.Error as error:
            raise failure(address, error) from None
    return value
