"""`trainvitals ui` and the server behind it: the address, the port, the refusal, the end."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
from servers import heeding_ctrl_c, unused_port

from trainvitals.commands import dashboard_server
from trainvitals.commands.dashboard_server import SETTINGS, free_port, is_loopback
from trainvitals.commands.ui import pick_port

CHECKOUT = Path(__file__).parent.parent
LOCAL = "127.0.0.1"


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind((LOCAL, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_free_port_is_found_beside_a_taken_one(taken_port):
    assert free_port(LOCAL, taken_port) > taken_port


def test_a_port_that_was_asked_for_is_not_exchanged(taken_port):
    with pytest.raises(OSError, match="is taken"):
        pick_port(LOCAL, taken_port)


def test_an_address_of_another_machine_is_an_error():
    with pytest.raises(OSError, match="address of this machine"):
        free_port("192.0.2.1")


@pytest.mark.parametrize(
    ("host", "expected"),
    [(LOCAL, True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.0.1", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_what_is_loopback(host, expected):
    assert is_loopback(host) == expected


def test_settings_are_those_of_the_checkout():
    tables = tomllib.loads((CHECKOUT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    chosen_by_ui = {"server.address", "server.allowedHosts"}
    assert {name: value for name, value in flat(tables) if name not in chosen_by_ui} == SETTINGS


def flat(table: dict, prefix: str = ""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_streamlit_reads_the_settings_from_their_variables():
    code = "import sys\nfrom streamlit.web.cli import main\nmain(['config', 'show'], standalone_mode=False)\n"
    names = [*SETTINGS, "server.allowedHosts"]
    code += f"import streamlit.config as c\nprint({{k: c.get_option(k) for k in {names!r}}})"
    done = subprocess.run([sys.executable, "-c", code], env=dashboard_server._environment(LOCAL), capture_output=True,
                          text=True, check=True, cwd="/")  # fmt: skip
    found = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    assert tuple(found.pop("server.allowedHosts")) == ("localhost", LOCAL)
    assert {key: str(value).lower() for key, value in found.items()} == {k: str(v).lower() for k, v in SETTINGS.items()}


def test_a_server_that_cannot_start_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(dashboard_server, "_command", lambda *_: [sys.executable, "-c", "raise SystemExit('no luck')"])
    with pytest.raises(OSError, match="no luck"), dashboard_server.serving(str(tmp_path), LOCAL, 1):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_ui_serves_from_any_folder_and_ends_when_told(tmp_path, word):
    process = subprocess.Popen(
        [sys.executable, "-m", "trainvitals", "ui", "--store", "mine", "--port", unused_port()], cwd=tmp_path,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        preexec_fn=heeding_ctrl_c,
    )  # fmt: skip
    try:
        said = process.stdout.readline()
        assert "no folder mine" in said
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline()).group()
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(word)
        rest = process.communicate(timeout=30)[0]
    finally:
        process.kill()
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    time.sleep(0.1)
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=2)
