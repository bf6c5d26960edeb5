"""`trainvitals prune`: delete old runs, after showing which."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer

from trainvitals.commands.runs import Json, Store
from trainvitals.commands.terminal import example, failed, say, to_json, wrong_usage
from trainvitals.store.catalogue import list_folder, update
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_address import is_address
from trainvitals.store.retention import Condemned, Rules, bytes_of, condemned, delete, seconds_of, total_bytes


def prune(
    store: Store = "runs/",
    older_than: Annotated[str | None, typer.Option(help="Runs last heard from longer ago, such as 30d or 12h.")] = None,
    keep_last: Annotated[int | None, typer.Option(min=0, help="All but the newest so many.")] = None,
    max_size: Annotated[
        str | None, typer.Option(help="The oldest, until the rest takes no more, such as 10GB.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only runs with this tag; again for another.")] = None,
    keep_tag: Annotated[list[str] | None, typer.Option(help="Never runs with this tag; again for another.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; without it they are only shown.")] = False,
    json: Json = False,
) -> None:
    """Delete runs that have ended, by age, number, size or tag; without --yes only show them.

    Live runs, runs that may be live on another machine and files that cannot be read are never deleted.
    """
    if is_address(store):
        wrong_usage("expected a folder, got an address of a database; delete its runs there")
    rules = _rules(older_than, keep_last, max_size, tag or [], keep_tag or [])
    found = condemned(list_folder(store), rules, time.time())
    deleted = {one.run.id for one in found if _deleted(one)} if yes else set()
    if deleted:
        update(store)
    if json:
        print(to_json([_as_json(one, one.run.id in deleted) for one in found]))
        return
    for one in found:
        done = "deleted" if one.run.id in deleted else "kept, it goes on" if yes else "would go"
        say(f"{done}: {one.run.id}, {one.num_bytes / 1e6:.1f} MB, {one.reason}")
    words = f"{len(deleted)} deleted" if yes else "nothing was deleted; --yes deletes them"
    say(f"{len(found)} runs, {total_bytes(found) / 1e6:.1f} MB: {words}" if found else f"No run of {store} may go.")


def _rules(older_than: str | None, keep_last: int | None, max_size: str | None, tags: list[str],
           keep_tags: list[str]) -> Rules:  # fmt: skip
    if older_than is None and keep_last is None and max_size is None and not tags:
        wrong_usage("expected a rule, got none; give --older-than, --keep-last, --max-size or --tag")
    try:
        return Rules(
            None if older_than is None else seconds_of(older_than), keep_last,
            None if max_size is None else bytes_of(max_size), frozenset(tags), frozenset(keep_tags),
        )  # fmt: skip
    except StoreError as error:
        wrong_usage(error)


def _deleted(one: Condemned) -> bool:
    try:
        return delete(one.run)
    except OSError as error:
        failed(f"expected to delete {one.run.path}, got {error.strerror} in prune; check the permissions of the folder")


def _as_json(one: Condemned, is_deleted: bool) -> dict[str, object]:
    return {**dataclasses.asdict(one.run), "path": str(Path(one.run.path)), "num_bytes": one.num_bytes,
            "reason": one.reason, "deleted": is_deleted}  # fmt: skip


COMMANDS = ((prune, example("trainvitals prune --older-than 30d --keep-tag paper",
                            "trainvitals prune --keep-last 100 --yes")),)  # fmt: skip
