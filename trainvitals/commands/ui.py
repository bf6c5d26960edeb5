"""`trainvitals ui`: the dashboard in a browser of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from trainvitals.commands.authentication import Authentication, AuthenticationError, read_authentication
from trainvitals.commands.dashboard_server import DEFAULT_PORT, free_port, is_loopback, serving, stop_on_terminate
from trainvitals.commands.runs import Store
from trainvitals.commands.terminal import example, failed, say, wrong_usage
from trainvitals.store.postgres_address import is_address

DEFAULT_HOST = "127.0.0.1"
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help=f"Port; the first free one from {DEFAULT_PORT} on if left out.")
]


def ui(
    store: Store = "runs/",
    port: Port = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULT_HOST,
    auth: Annotated[
        str, typer.Option("--auth", metavar="FILE", help="Readers log in at the OpenID provider that this file names.")
    ] = "",
    share: Annotated[
        bool, typer.Option("--share", help="Listen on every address of this machine; only together with --auth.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on an address that others can reach, without a password.")
    ] = False,
) -> None:
    """Show the runs of a store in the browser, live; ends on Ctrl-C."""
    host = _listening_on(host, bool(auth), share, insecure)
    authentication = _authentication(auth)
    if is_address(store):
        from trainvitals.run import list_runs

        list_runs(store)  # a wrong password is told here, not on the page
    elif not Path(store).is_dir():
        say(f"There is no folder {store} yet; the dashboard shows its runs as soon as there are some. "
            "`trainvitals sample open` shows recorded ones.")  # fmt: skip
    stop_on_terminate()
    with serving(store, host, pick_port(host, port), authentication) as server:
        say(f"Dashboard: {server.address}  (Ctrl-C stops it)")
        wait_for_the_end(server.process.poll)


def _listening_on(host: str, has_login: bool, share: bool, insecure: bool) -> str:
    """Return the address to listen on; refuse one that others can reach without a login."""
    if share and not has_login:
        wrong_usage(
            "expected --auth FILE with --share, got none: everyone who reaches this machine would read every run; "
            "docs/security.md says how readers log in"
        )
    if share:
        return "0.0.0.0" if host == DEFAULT_HOST else host
    if not is_loopback(host) and not has_login and not insecure:
        wrong_usage(
            f"expected an address of this machine, such as 127.0.0.1, got --host {host}: the dashboard asks for no "
            "password, so anyone who reaches that address reads every run; "
            "forward the port over SSH, let readers log in with --auth FILE, or add --insecure if that is meant"
        )
    return host


def _authentication(path: str) -> Authentication | None:
    if not path:
        return None
    try:
        return read_authentication(path)
    except AuthenticationError as error:
        wrong_usage(error)


def pick_port(host: str, port: int | None) -> int:
    """Return the port that was asked for, or a free one.

    Raises:
        OSError: if the port that was asked for is taken.
    """
    if port is not None and free_port(host, port) != port:
        raise OSError(f"expected a free port, got --port {port} that is taken; try another, or leave it out")
    return port if port is not None else free_port(host)


def wait_for_the_end(poll: Callable[[], int | None]) -> None:
    """Wait for Ctrl-C. A server that ends by itself is a failure."""
    try:
        while (code := poll()) is None:
            time.sleep(0.2)
    except KeyboardInterrupt:
        say("Stopped.")
        return
    failed(f"the dashboard ended by itself, with code {code}")


COMMANDS = ((ui, example("trainvitals ui", "trainvitals ui --store experiments/ --port 8600",
                     "trainvitals ui --share --auth login.toml")),)
