"""Connections to a PostgreSQL store, and its errors in our words, without passwords.

Reading connections are kept for the next call: a dashboard asks once a second, and a TLS handshake
costs more than most answers.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from trainvitals.redaction import redact_text
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_address import secured, shown
from trainvitals.store.postgres_schema import check_version

CONNECT_SECONDS = 5  # then it counts as away
STATEMENT_SECONDS = 60
MAX_IDLE = 4  # reading connections kept for an address
_PASSING = (  # refusals that mend themselves
    "starting up", "shutting down", "in recovery mode", "too many clients", "remaining connection slots",
    "too many connections", "terminating connection",
)  # fmt: skip


class AwayError(StoreError):
    """The database cannot be reached now; it is worth trying again."""


def connect(address: str, *, is_reader: bool = False) -> Connection[Any]:
    """Return a connection in autocommit mode.

    Raises:
        AwayError: if the database cannot be reached now.
        StoreError: if the address is wrong, or the server refuses it.
    """
    settings = f"SET statement_timeout = {STATEMENT_SECONDS * 1000}; SET lock_timeout = 30000"
    if is_reader:
        settings += "; SET default_transaction_read_only = on"
    try:
        connection = psycopg.connect(
            secured(address), autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="trainvitals",
            keepalives=1, keepalives_idle=5, keepalives_interval=2, keepalives_count=3,
            tcp_user_timeout=15_000,
        )  # fmt: skip
        connection.execute(settings.encode())
    except psycopg.Error as error:
        raise _refusal(address, error) from None  # its own text may quote the address
    connection.prepare_threshold = None  # a pooler in between may hand each statement to another server process
    return connection


def _refusal(address: str, error: Exception) -> StoreError:
    text = words_of(error, address)
    is_answer = "FATAL" in text or isinstance(error, psycopg.ProgrammingError) or "certificate" in text
    is_answer = is_answer or "does not support SSL" in text or "root certificate" in text
    if is_answer and not any(word in text for word in _PASSING):
        return StoreError(
            f"expected a PostgreSQL store, got a refusal from {shown(address)}: {text}; "
            "check user, password, database and sslmode in the address"
        )
    return AwayError(
        f"expected a PostgreSQL server that answers, got none at {shown(address)}: {text}; "
        "check host and port, or try again when it is back"
    )


def words_of(error: Exception, address: str) -> str:
    """Return the text of an error on one line, without the password of the address."""
    text = " ".join(str(error).split())
    for secret in _passwords(address):
        text = text.replace(secret, "***")
    return redact_text(text)


def _passwords(address: str) -> list[str]:
    with contextlib.suppress(psycopg.Error):
        found = conninfo_to_dict(address)
        return [str(found[key]) for key in ("password", "sslpassword") if found.get(key)]
    return []


class _Idle:
    """Reading connections that nobody uses at the moment, by address; a forked child has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_address: dict[str, list[Connection[Any]]] = {}
        self._pid = os.getpid()

    def take(self, address: str) -> Connection[Any] | None:
        with self._lock:
            if self._pid != os.getpid():
                self._by_address, self._pid = {}, os.getpid()
            kept = self._by_address.get(address)
            return kept.pop() if kept else None

    def give(self, address: str, connection: Connection[Any]) -> None:
        with self._lock:
            kept = self._by_address.setdefault(address, [])
            if len(kept) < MAX_IDLE and not connection.closed and self._pid == os.getpid():
                kept.append(connection)
                return
        connection.close()

    def close_all(self) -> None:
        with self._lock:
            for connection in (c for kept in self._by_address.values() for c in kept):
                connection.close()
            self._by_address = {}


_idle = _Idle()
close_idle = _idle.close_all
atexit.register(close_idle)


@contextlib.contextmanager
def reading(address: str) -> Iterator[Connection[Any]]:
    """Give a connection in one read-only transaction that sees one moment.

    Raises:
        AwayError: if the database cannot be reached now.
        StoreError: if it refuses, or has no tables of ours.
    """
    connection = _begun(address)
    try:
        yield connection
        connection.execute("COMMIT")
    except psycopg.Error as error:
        connection.close()
        raise failure(address, error) from None
    except BaseException:
        connection.close()
        raise
    _idle.give(address, connection)


def _begun(address: str) -> Connection[Any]:
    """Return a connection in a transaction: one that was kept, if the server still knows it, else a new one."""
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    while (kept := _idle.take(address)) is not None:
        try:
            kept.execute(begin)
            return kept
        except psycopg.Error:
            kept.close()
    fresh = connect(address, is_reader=True)
    try:
        check_version(fresh, shown(address))
        fresh.execute(begin)
    except psycopg.Error as error:
        fresh.close()
        raise failure(address, error) from None
    except BaseException:
        fresh.close()
        raise
    return fresh


def failure(address: str, error: psycopg.Error) -> StoreError:
    """Return an error of a statement in our words: away if the connection went, refused otherwise."""
    text = words_of(error, address)
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return AwayError(f"expected an answer of the database, got {text} from {shown(address)}; try again")
    hint = "check the role's rights" if isinstance(error, psycopg.errors.InsufficientPrivilege) else "see its log"
    return StoreError(f"expected the database to do as asked, got {text} from {shown(address)}; {hint}")
