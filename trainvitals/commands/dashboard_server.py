"""The dashboard as a process beside this one: started, waited for, stopped."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import trainvitals
from trainvitals.commands.authentication import Authentication
from trainvitals.store.postgres_address import is_address

DEFAULT_PORT = 8501  # Streamlit's own
PORTS_TRIED = 50
START_SECONDS = 60.0  # a cold start on a busy machine took 12 s
STOP_SECONDS = 5.0

# What `.streamlit/config.toml` says of a checkout, said again for every other folder; a test compares the two.
SETTINGS: Mapping[str, Any] = {
    "server.enableXsrfProtection": True,
    "server.enableCORS": True,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "server.enableStaticServing": False,
    "server.maxUploadSize": 1,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "type",
    "client.showErrorLinks": False,
    "theme.baseRadius": "medium",
    "theme.showWidgetBorder": True,
    "theme.light.primaryColor": "#0071AD",
    "theme.light.backgroundColor": "#FFFFFF",
    "theme.light.secondaryBackgroundColor": "#F4F6F8",
    "theme.light.textColor": "#1B1F24",
    "theme.dark.primaryColor": "#4DB2EC",
    "theme.dark.backgroundColor": "#12161C",
    "theme.dark.secondaryBackgroundColor": "#1B212A",
    "theme.dark.textColor": "#E6E9EE",
}


@dataclass(frozen=True)
class Server:
    """A dashboard that answers at `address`."""

    address: str
    process: subprocess.Popen[bytes]


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, first: int = DEFAULT_PORT) -> int:
    """Return the first port from `first` on that nobody listens on.

    Raises:
        OSError: if none of the next 50 is free, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise OSError(f"expected an address of this machine, got --host {host} ({error})") from error
    raise OSError(f"expected a free port from {first} on, got {PORTS_TRIED} that are taken; try another --port")


@contextmanager
def serving(
    store: str, host: str, port: int, authentication: Authentication | None = None
) -> Iterator[Server]:
    """Run the dashboard on a store folder while the block runs; yields once it answers.

    Args:
        store: a folder or the address of a database.
        host: address to listen on.
        port: likewise.
        authentication: the file with the provider at which readers log in.

    Raises:
        OSError: if it ends, or does not answer within a minute; its own words are in the message.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            _command(store, host, port, authentication), env=_environment(host, store, authentication),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            _wait_until_it_answers(address, process, log)
            yield Server(address, process)
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process: asked first, then without asking."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stop_on_terminate() -> None:
    """Let SIGTERM end this program as Ctrl-C does, so that nothing is left running behind it.

    Not by sending itself Ctrl-C: a shell lets programs in the background ignore that.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _command(store: str, host: str, port: int, authentication: Authentication | None = None) -> list[str]:
    page = Path(trainvitals.__file__).parent / "views" / "dashboard.py"
    name = authentication.host if authentication else host
    where = ["--server.address", host, "--server.port", str(port), "--browser.serverAddress", name]
    if authentication:
        where += ["--secrets.files", str(authentication.path)]
    python = [sys.executable, "-P"]  # -P: a `streamlit.py` in the present folder is not what is meant
    command = [*python, "-m", "streamlit", "run", str(page), *where]
    return command if is_address(store) else [*command, "--", "--store", os.path.abspath(store)]


def _environment(host: str, store: str = "", authentication: Authentication | None = None) -> dict[str, str]:
    """Return the environment of the server: its settings, and where this package is.

    The address of a database is in it too: arguments are shown to everyone by the list of processes.
    """
    names = {**SETTINGS, "server.allowedHosts": _allowed_hosts(host, authentication)}
    settings = {_variable(name): str(value).lower() if isinstance(value, bool) else str(value)
                for name, value in names.items()}  # fmt: skip
    home = Path(trainvitals.__file__).parent.parent
    is_checkout = (home / "pyproject.toml").exists()  # site-packages is on the path without this
    path = [os.environ.get("PYTHONPATH"), str(home) if is_checkout else None]
    address = {"TRAINVITALS_STORE": store} if is_address(store) else {}
    address |= {"TRAINVITALS_AUTH": "required"} if authentication else {}
    return {**os.environ, **settings, **address, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _allowed_hosts(host: str, authentication: Authentication | None = None) -> str:
    """Return the host names that a browser may ask for, as Streamlit splits them: by blanks.

    An address that stands for all of them (0.0.0.0) has no name to compare with; that of the login has.
    """
    if authentication:
        return " ".join(dict.fromkeys(["localhost", "127.0.0.1", authentication.host]))
    if is_loopback(host):
        return " ".join(dict.fromkeys(["localhost", "127.0.0.1", host]))
    return "*" if host in {"0.0.0.0", "::"} else host


def _variable(option: str) -> str:
    """Return the environment variable of a Streamlit option.

    >>> _variable("server.fileWatcherType")
    'STREAMLIT_SERVER_FILE_WATCHER_TYPE'
    """
    return "STREAMLIT_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", option).replace(".", "_").upper()


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise OSError(f"expected the dashboard to start, it ended with code {process.returncode}: {_tail(log)}")
        try:
            with urllib.request.urlopen(_reachable(address) + "/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise OSError(f"expected the dashboard to answer at {address} within {START_SECONDS:.0f} s, it said: {_tail(log)}")


def _reachable(address: str) -> str:
    return address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode("utf-8", "replace").strip()[-2000:] or "nothing"
