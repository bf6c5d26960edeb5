"""A PostgreSQL server for all tests of this folder in one worker; it starts with the first test that asks for it."""

import itertools

import pytest
from postgres_server import Server, program

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server():
    if program("initdb") is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with Server() as running:
        yield running


@pytest.fixture
def address(server):
    """The address of an empty database."""
    from trainvitals.store.postgres_connection import close_idle

    yield server.database(f"runs_{next(_numbers)}")
    close_idle()
