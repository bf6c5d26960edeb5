"""Addresses of a PostgreSQL store: told from folders, made safe to use and safe to show.

An address is a libpq URI, `postgresql://user@host:port/database?sslmode=...`. What libpq reads from
elsewhere (PGPASSWORD, PGPASSFILE, ~/.pgpass, service files) works as always and is the better place
for a password.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs, urlsplit

from trainvitals.redaction import redact_text
from trainvitals.store.errors import StoreError

SCHEMES = ("postgresql://", "postgres://")
_LOCAL = {"", "localhost", "127.0.0.1", "::1"}


def is_address(store: Any) -> bool:
    """Tell whether a store is a PostgreSQL address, not a folder.

    >>> is_address("postgresql://db/runs"), is_address("runs/")
    (True, False)
    """
    return isinstance(store, str) and store.lower().startswith(SCHEMES)


def shown(address: str) -> str:
    """Return the address as it may be shown: without its password.

    >>> shown("postgresql://ann:s3cret@db/runs?password=s3cret")
    'postgresql://ann:***@db/runs?password=***'
    """
    return redact_text(address)


def run_path(address: str, run_id: str) -> str:
    """Return what a list of runs shows as the place of a run.

    >>> run_path("postgresql://ann:s3cret@db/runs", "mlp-1")
    'postgresql://ann:***@db/runs#mlp-1'
    """
    return f"{shown(address)}#{run_id}"


def secured(address: str) -> str:
    """Return the address with TLS and the server's name verified, unless it says otherwise or is of this machine.

    libpq's own default, `sslmode=prefer`, falls back to plain text without a word.

    >>> secured("postgresql://ann@db.example/runs")
    'postgresql://ann@db.example/runs?sslmode=verify-full&sslrootcert=system'
    >>> secured("postgresql://ann@localhost/runs")
    'postgresql://ann@localhost/runs'
    """
    check(address)
    parts = urlsplit(address)
    options = parse_qs(parts.query)
    hosts = [_host(place) for place in parts.netloc.rpartition("@")[2].split(",")]
    hosts += [host for value in options.get("host", ()) for host in value.split(",")]
    is_local = all(host in _LOCAL or host.startswith("/") for host in hosts)
    if is_local or "sslmode" in options or "service" in options or "PGSSLMODE" in os.environ:
        return address
    root = "" if "sslrootcert" in options or "PGSSLROOTCERT" in os.environ else "&sslrootcert=system"
    return f"{address}{'&' if parts.query else '?'}sslmode=verify-full{root}"


def _host(place: str) -> str:
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place.partition(":")[0]


def check(address: str) -> None:
    """Refuse an address that cannot be meant.

    Raises:
        StoreError: if it is no PostgreSQL URI, or names no database.
    """
    parts = urlsplit(address) if is_address(address) else None
    if parts is None or parts.fragment:
        raise StoreError(
            f"expected a PostgreSQL address, got {shown(str(address))!r} in store=; "
            "write postgresql://user@host/database, and %23 for a # in it"
        )


def missing_driver(error: ImportError) -> StoreError:
    """Return the error of a machine without psycopg."""
    return StoreError(
        f"expected the driver of PostgreSQL, got {error} in store=; install it: pip install 'trainvitals[postgres]'"
    )
