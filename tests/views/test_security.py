"""Who gets in, and what they can do there: addresses, logins with a local provider, a store that is only read."""

import ast
import os
import re
import socket
import sqlite3
from pathlib import Path

import make_run
import oidc_provider
import pytest
from test_browser import CHROMIUM, browser, page, wait_for
from typer.testing import CliRunner

import trainvitals
from trainvitals.cli import app
from trainvitals.commands import dashboard_server
from trainvitals.commands.authentication import AuthenticationError, read_authentication
from trainvitals.commands.dashboard_server import serving
from trainvitals.run import open_run
from trainvitals.store import database
from trainvitals.views.login import is_allowed

__all__ = ["browser", "page"]  # fixtures

VIEWS = Path(trainvitals.__file__).parent / "views"
COMPLETE = """[auth]
redirect_uri = "{redirect}"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "trainvitals"
client_secret = "s"
server_metadata_url = "{provider}/.well-known/openid-configuration"

[trainvitals]
allow = ["ada@example.org", "*@lab.example"]
"""


def login_file(folder: Path, text: str = COMPLETE, redirect: str = "https://dash.example.org/oauth2callback",
               provider: str = "https://id.example.org") -> Path:  # fmt: skip
    path = folder / "login.toml"
    path.write_text(text.replace("{redirect}", redirect).replace("{provider}", provider), encoding="utf-8")
    path.chmod(0o600)
    return path


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["ui", *arguments])
    assert done.exit_code == 2
    return " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_another_address_is_refused_without_a_login(host):
    assert "--auth FILE" in refused("--host", host)


@pytest.mark.parametrize("more", [(), ("--insecure",), ("--host", "127.0.0.1")])
def test_share_is_refused_without_a_login_whatever_else_is_said(more):
    assert "expected --auth FILE with --share" in refused("--share", *more)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('client_secret = "s"\n', ""), "without client_secret"),
        (("0123456789abcdef0123456789abcdef", "short"), "cookie_secret of 32 characters"),
        (('allow = ["ada@example.org", "*@lab.example"]', ""), "a list allow"),
        (('allow = ["ada@example.org", "*@lab.example"]', "allow = []"), "a list allow"),
        (("[auth]", "[other]"), "without redirect_uri"),
        (("[auth]", "[auth"), "a TOML file"),
        (("https://dash.example.org/oauth2callback", "https://dash.example.org/"), "ends in /oauth2callback"),
        (("https://dash.example.org", "http://dash.example.org"), "with https"),
        (("https://id.example.org", "http://id.example.org"), "with https"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_login_file_that_protects_nothing_is_refused_with_its_reason(tmp_path, change, reason):
    path = login_file(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(AuthenticationError, match=reason):
        read_authentication(path)
    assert "in --auth" in refused("--share", "--auth", str(path))


def test_a_login_file_that_others_may_read_is_refused(tmp_path):
    path = login_file(tmp_path)
    path.chmod(0o640)
    with pytest.raises(AuthenticationError, match="owner alone"):
        read_authentication(path)
    with pytest.raises(AuthenticationError, match="no file"):
        read_authentication(tmp_path / "absent.toml")


def test_behind_a_login_only_the_dashboards_own_name_is_answered(tmp_path):
    found = read_authentication(login_file(tmp_path))
    assert found.host == "dash.example.org"
    environment = dashboard_server._environment("0.0.0.0", "", found)
    assert environment["STREAMLIT_SERVER_ALLOWED_HOSTS"] == "localhost 127.0.0.1 dash.example.org"
    assert environment["TRAINVITALS_AUTH"] == "required"
    command = dashboard_server._command("runs", "0.0.0.0", 8501, found)
    assert command[command.index("--secrets.files") + 1] == str(found.path)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"email": "ada@example.org", "email_verified": True}, True),
        ({"email": "ADA@EXAMPLE.ORG", "email_verified": True}, True),
        ({"email": "bob@lab.example", "email_verified": True}, True),
        ({"email": "bob@lab.example.evil.org", "email_verified": True}, False),
        ({"email": "a@evil.org@lab.example", "email_verified": True}, False),
        ({"email": "ada@example.org", "email_verified": False}, False),
        ({"email": "ada@example.org", "email_verified": "true"}, False),
        ({"email": "ada@example.org"}, False),
        ({"email": None, "email_verified": True}, False),
        ({}, False),
    ],
)
def test_who_is_allowed(claims, expected):
    assert is_allowed(claims, ["ada@example.org", "*@lab.example"]) == expected
    assert not is_allowed(claims, [])


def test_the_app_shows_nothing_if_a_login_is_asked_for_and_no_provider_is_known(open_app, store, monkeypatch):
    monkeypatch.setenv("TRAINVITALS_AUTH", "required")
    found = open_app(store)
    assert "asks for a login" in found.error[0].value
    assert not found.get("plotly_chart")
    assert not found.selectbox


def test_no_page_can_write_to_a_store():
    """By construction: nothing in the views imports what writes, and nothing takes an upload."""
    writers = ("trainvitals.store.writer", "trainvitals.store.opening", "trainvitals.store.rows",
               "trainvitals.store.tagging", "trainvitals.annotating")  # fmt: skip
    for path in VIEWS.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {f"{node.module}.{name.name}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                    for name in node.names} | {name.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                                               for name in node.names}  # fmt: skip
        assert not [name for name in imported if name.startswith(writers)], path
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not called & {"file_uploader", "camera_input", "audio_input", "chat_input"}, path


def test_a_run_is_opened_for_reading_only(store):
    with open_run("latest", store) as run, database.reading(Path(run.path)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("CREATE TABLE more (a)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_shown(open_app, tmp_path):
    make_run.record_run(tmp_path, num_steps=20)
    tmp_path.chmod(0o500)
    try:
        assert not open_app(tmp_path).error
    finally:
        tmp_path.chmod(0o700)


def test_looking_at_a_run_changes_no_byte_of_its_folder(open_app, tmp_path):
    make_run.record_run(tmp_path, num_steps=20)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert not open_app(tmp_path).error
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_login_at_a_provider_opens_the_dashboard_for_those_who_are_allowed(browser, store, tmp_path):
    port = free_port()
    with oidc_provider.running() as provider:
        path = login_file(tmp_path, redirect=f"http://127.0.0.1:{port}/oauth2callback", provider=provider.address)
        with serving(str(store), "127.0.0.1", port, read_authentication(path)) as server:

            def visit(**user):
                provider.user = {"sub": "1", **user}
                page = browser.new_context().new_page()
                page.goto(server.address)
                page.get_by_role("button", name="Log in").wait_for(timeout=30_000)
                assert page.locator(".js-plotly-plot").count() == 0
                assert page.get_by_text("digits-cnn").count() == 0
                page.get_by_role("button", name="Log in").click()
                return page

            page = visit(email="ada@example.org", email_verified=True)
            page.get_by_text("digits-cnn").first.wait_for(timeout=30_000)
            page.get_by_text(re.compile("ada.?@.?example")).wait_for()  # in the sidebar
            page.get_by_role("button", name="Log out").click()
            page.get_by_role("button", name="Log in").wait_for(timeout=30_000)
            assert page.get_by_text("digits-cnn").count() == 0
            page.context.close()

            page = visit(email="mallory@example.org", email_verified=True)
            page.get_by_text("not among those who may see").wait_for(timeout=30_000)
            assert page.get_by_text("digits-cnn").count() == 0
            page.context.close()

            provider.signs_with = type(provider.key).generate_key(2048, {"kid": "one"})  # not the published key
            before = provider.num_logins
            page = visit(email="ada@example.org", email_verified=True)
            wait_for(lambda: provider.num_logins == before + 1, 30)  # a token was given out, and is not believed
            page.wait_for_timeout(1000)
            page.get_by_role("button", name="Log in").wait_for(timeout=30_000)
            assert page.get_by_text("digits-cnn").count() == 0
            page.context.close()
