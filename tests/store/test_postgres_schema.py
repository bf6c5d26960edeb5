"""Tables, migrations, roles and TLS of a PostgreSQL store."""

from __future__ import annotations

import shutil
import subprocess
import threading

import psycopg
import pytest
from postgres_server import Server, program
from typer.testing import CliRunner

from trainvitals.cli import app
from trainvitals.schema import Record
from trainvitals.store import postgres_schema as schema
from trainvitals.store.errors import NewerSchemaError, StoreError
from trainvitals.store.postgres_connection import close_idle, connect
from trainvitals.store.postgres_source import list_database
from trainvitals.store.shipping import Shipper
from trainvitals.store.writer import RunWriter


def tables(address: str) -> set[str]:
    with psycopg.connect(address) as db:
        rows = db.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'trainvitals'")
        return {name for (name,) in rows}


@pytest.fixture
def run(tmp_path):
    writer = RunWriter.create(tmp_path, "run", {}, {})
    writer.append(Record(1, 0.0, {}, {"loss": 1.0}))
    writer.close()
    return writer


def ship(run, address: str) -> None:
    with Shipper(run.path, address) as shipper:
        shipper.ship()


def test_migrating_twice_is_migrating_once(address):
    with connect(address) as db:
        assert schema.migrate(db, "here") == schema.migrate(db, "here") == len(schema.MIGRATIONS)
    assert {table.name for table in schema.TABLES} < tables(address)


def test_a_migration_that_is_interrupted_leaves_the_version_before_and_can_be_done_again(address, run):
    def broken(db):
        schema.MIGRATIONS[0](db)
        raise KeyboardInterrupt  # the process is stopped in the middle

    with connect(address) as db, pytest.raises(KeyboardInterrupt):
        schema.migrate(db, "here", (broken,))
    assert tables(address) == set()
    ship(run, address)
    assert len(list_database(address)) == 1


def test_a_migration_that_is_killed_leaves_the_version_before(address, run):
    def killed(db):
        schema.MIGRATIONS[0](db)
        with psycopg.connect(address, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (db.info.backend_pid,))
        db.execute("SELECT 1")

    with pytest.raises(psycopg.OperationalError), connect(address) as db:
        schema.migrate(db, "here", (killed,))
    assert tables(address) == set()
    ship(run, address)


def test_a_later_migration_keeps_what_is_there(address, run):
    ship(run, address)

    def second(db):
        db.execute("ALTER TABLE trainvitals.runs ADD COLUMN mood text")

    with connect(address) as db:
        assert schema.migrate(db, "here", (*schema.MIGRATIONS, second)) == len(schema.MIGRATIONS) + 1
    with pytest.raises(NewerSchemaError, match="upgrade TrainVitals"):
        list_database(address)
    with pytest.raises(NewerSchemaError, match="upgrade TrainVitals"):
        ship(run, address)


def test_programs_that_start_at_once_migrate_once(address):
    failures = []
    all_ready = threading.Barrier(12)

    def start():
        try:
            with connect(address) as db:
                assert schema.version_of(db) == 0  # from here on its server process remembers that there is nothing
                all_ready.wait(30)
                schema.migrate(db, "here")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with psycopg.connect(address) as db:
        assert db.execute("SELECT count(*) FROM trainvitals.version").fetchone() == (len(schema.MIGRATIONS),)


def login(server, address: str, name: str, group: str | None) -> str:
    database = address.rpartition("/")[2]
    with server.session(database) as db:
        db.execute(f"DROP ROLE IF EXISTS {name}")
        db.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'role-Pa55'")
        if group:
            db.execute(f"GRANT {group} TO {name}")
    return server.address(database, name, "role-Pa55")


def test_a_reader_reads_and_cannot_write_and_a_writer_cannot_change_tables(server, address, run):
    output = CliRunner().invoke(app, ["migrate", "--to", address])
    assert output.exit_code == 0, output.output
    assert server.password not in output.output
    writer = login(server, address, "test_writer", schema.WRITER)
    reader = login(server, address, "test_reader", schema.READER)
    stranger = login(server, address, "test_stranger", None)
    ship(run, writer)
    assert len(list_database(reader)) == 1
    with pytest.raises(StoreError, match="permission denied"):
        ship(run, reader)
    with pytest.raises(StoreError, match="permission denied"):
        list_database(stranger)
    statements = {
        reader: ["INSERT INTO trainvitals.edits VALUES (1, 'tags', '[]')", "UPDATE trainvitals.runs SET name = 'x'",
                 "DELETE FROM trainvitals.chunks", "TRUNCATE trainvitals.runs", "DROP TABLE trainvitals.runs",
                 "CREATE TABLE trainvitals.mine (x int)"],
        writer: ["DROP TABLE trainvitals.runs", "ALTER TABLE trainvitals.runs ADD COLUMN x int",
                 "DELETE FROM trainvitals.version", "CREATE TABLE trainvitals.mine (x int)"],
    }  # fmt: skip
    for role, forbidden in statements.items():
        with psycopg.connect(role, autocommit=True) as db:
            for statement in forbidden:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    db.execute(statement)
    output = CliRunner().invoke(app, ["tag", "latest", "mine", "--store", reader])
    assert output.exit_code == 1
    assert "may write" in output.output
    assert CliRunner().invoke(app, ["tag", "latest", "mine", "--store", writer]).exit_code == 0
    assert list_database(reader)[0].tags == ("mine",)
    close_idle()


def test_a_role_that_may_not_make_tables_is_told_whom_to_ask(server, address, run):
    stranger = login(server, address, "test_stranger", None)
    with pytest.raises(StoreError, match="trainvitals migrate"):
        ship(run, stranger)
    with pytest.raises(StoreError, match="trainvitals migrate"):
        list_database(stranger)


# ---- TLS


def certificate(folder, name: str, signed_by: str | None, host: str) -> None:
    """Make a key and a certificate for a host, signed by a CA of this folder or, for a CA, by itself."""
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    if signed_by is None:
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.crt",
                "-subj", f"/CN={host}", "-days", "2")  # fmt: skip
        return
    (folder / "names").write_text(f"subjectAltName=DNS:{host}\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={host}")  # fmt: skip
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{signed_by}.crt", "-CAkey", f"{signed_by}.key",
            "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", "names")  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None or program("initdb") is None, reason="needs openssl and PostgreSQL")
def test_verify_full_takes_the_right_certificate_and_no_other(tmp_path, run):
    certificate(tmp_path, "ca", None, "our own CA")
    certificate(tmp_path, "stranger", None, "another CA")
    certificate(tmp_path, "server", "ca", "localhost")
    with Server(hba="hostssl all all 127.0.0.1/32 scram-sha-256\n") as server:
        for name in ("server.key", "server.crt"):
            shutil.copy(tmp_path / name, server.data / name)
            (server.data / name).chmod(0o600)
            shutil.chown(server.data / name, server.data.owner())
        with open(server.data / "postgresql.conf", "a") as file:
            file.write("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n")
        server.stop()
        server.start()
        plain = server.address()
        by_name = plain.replace("@127.0.0.1:", "@localhost:")
        right = f"{by_name}?sslmode=verify-full&sslrootcert={tmp_path}/ca.crt&hostaddr=127.0.0.1"
        ship(run, right)
        assert len(list_database(right)) == 1
        close_idle()
        wrong_ca = right.replace("/ca.crt", "/stranger.crt")
        wrong_name = f"{plain}?sslmode=verify-full&sslrootcert={tmp_path}/ca.crt"
        for address in (wrong_ca, wrong_name, f"{by_name}?sslmode=disable&hostaddr=127.0.0.1"):
            with pytest.raises(StoreError, match="refusal") as refused:
                ship(run, address)
            assert server.password not in str(refused.value)
