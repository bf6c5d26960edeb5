"""A PostgreSQL cluster of a test's own: in a temporary folder, on a port of its own, owned by nobody's server.

Servers refuse to run as root; there they run as the user `postgres` that the package makes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
from servers import unused_port

SUPERUSER = "trainvitals_test"


def program(name: str) -> str | None:
    """Where a program of the server is; distributions keep them out of the path."""
    found = shutil.which(name)
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return found or next((str(place) for place in places), None)


class Server:
    """Make it with `with Server() as server:`. TLS and other settings come as lines of postgresql.conf."""

    def __init__(self, settings: str = "", hba: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tv-pg-"))
        self.data = self.folder / "data"
        self.port = unused_port()
        self.password = "s3cret-Pa55"
        self._settings = settings
        self._hba = hba

    def __enter__(self) -> Server:
        os.chmod(self.folder, 0o755)
        (self.folder / "password").write_text(self.password)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            shutil.chown(self.folder / "password", "postgres")
        self._run("initdb", "-D", self.data, "-U", SUPERUSER, "--auth=scram-sha-256", "-E", "UTF8", "--no-sync",
                  "--no-locale", f"--pwfile={self.folder / 'password'}")  # fmt: skip
        with open(self.data / "postgresql.conf", "a") as file:
            file.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"
                       f"shared_buffers = 64MB\nfsync = off\nmax_connections = 60\n{self._settings}\n")  # fmt: skip
        if self._hba:
            (self.data / "pg_hba.conf").write_text(self._hba)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, name: str, *words: object) -> None:
        command = [str(program(name)), *map(str, words)]
        as_other = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(command, capture_output=True, text=True, cwd="/tmp", check=False, timeout=60, **as_other)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is as a crash."""
        self._run("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def pause(self, is_paused: bool) -> None:
        """Stop or continue the postmaster's process group, as a machine that hangs."""
        pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGSTOP if is_paused else signal.SIGCONT)

    def address(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None,
                port: str | None = None) -> str:  # fmt: skip
        """Return the address of a database."""
        secret = self.password if password is None else password
        return f"postgresql://{user}:{secret}@127.0.0.1:{port or self.port}/{database}"

    def database(self, name: str) -> str:
        """Make a new database and return its address."""
        with self.session() as session:
            session.execute(f'CREATE DATABASE "{name}"')
        return self.address(name)

    def session(self, database: str = "postgres") -> psycopg.Connection:
        """Return a superuser's connection."""
        return psycopg.connect(self.address(database), autocommit=True)

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.folder / "log").read_text(errors="replace")
