"""`trainvitals ship` and `migrate`: run files into a PostgreSQL store, and its tables made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trainvitals.commands.runs import RunName
from trainvitals.commands.terminal import example, failed, say, warn, wrong_usage

To = Annotated[
    str, typer.Option("--to", metavar="ADDRESS", help="postgresql://user@host/database; - reads it from stdin.")
]


def ship(
    run: RunName,
    to: To,
    store: Annotated[str, typer.Option(help="Folder that holds the run.")] = "runs/",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run is over, through outages.")] = False,
) -> None:
    """Ship a run file to a PostgreSQL store; what is there already stays as it is."""
    from trainvitals.run import UnknownRunError, open_run

    address = read_address(to)
    try:
        path = Path(open_run(run, store).path)
    except UnknownRunError as error:
        wrong_usage(error)
    if follow:
        if not _follow(path, address):
            failed(f"the database stayed away; {path} has the rest: ship it again")
        return
    from trainvitals.store.shipping import Shipper

    with Shipper(path, address) as shipper:
        outcome = shipper.ship()
    say(f"shipped {outcome.num_rows} rows of {path.stem}" if outcome.num_rows else f"{path.stem} is there already")


def _follow(path: Path, address: str) -> bool:
    from trainvitals.store.shipping import follow

    return follow(path, address, on_trouble=warn)


def read_address(to: str) -> str:
    """Return the address of `--to`.

    Raises:
        StoreError: if it is none, or the driver is not installed.
    """
    from trainvitals.store.postgres_address import check, missing_driver

    address = sys.stdin.readline().strip() if to == "-" else to
    check(address)
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise missing_driver(error) from error
    return address


def migrate(to: To) -> None:
    """Make or update the tables of a PostgreSQL store, and its roles where this user may."""
    from trainvitals.store.postgres_address import shown
    from trainvitals.store.postgres_connection import connect
    from trainvitals.store.postgres_schema import READER, WRITER, grant_roles
    from trainvitals.store.postgres_schema import migrate as migrate_tables

    address = read_address(to)
    with connect(address) as connection:
        version = migrate_tables(connection, shown(address))
        say(f"{shown(address)} has schema version {version}")
        if grant_roles(connection):
            say(f"roles: GRANT {WRITER} TO those who train, GRANT {READER} TO those who only look")
        else:
            warn(f"roles {WRITER} and {READER} were not made: this user may not; its owner can repeat this command")


COMMANDS = (
    (ship, example("trainvitals ship latest --to postgresql://ann@db.example/runs",
                   "trainvitals ship runs/mlp-1.sqlite --to postgresql://ann@db.example/runs --follow")),
    (migrate, example("trainvitals migrate --to postgresql://owner@db.example/runs")),
)  # fmt: skip
