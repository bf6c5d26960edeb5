"""Each alert against the thing itself: a server on this machine, a program in the path."""

import http.server
import json
import shutil
import smtplib
import ssl
import subprocess
import threading
from contextlib import contextmanager

import pytest

from trainvitals.alerts import AlertError, DesktopAlert, MailAlert, TerminalAlert, WebhookAlert
from trainvitals.alerts import alert as alert_module
from trainvitals.alerts.alert import MAX_TEXT, message
from trainvitals.schema import Advice, Verdict, VerdictState

HOSTILE = "run\r\nBcc: all@example.org\x1b[31m\u202e"
VERDICT = Verdict("overfitting", "Overfitting", VerdictState.ALARM, 400, 450, 0.9, "The held-out loss rises.",
                  advice=(Advice("Stop early.", "Prechelt 1998"),))  # fmt: skip


def test_the_message_is_one_line_whatever_the_run_is_called():
    text = message(VERDICT, HOSTILE)
    assert text.startswith("run Bcc: all@example.org?[31m?: ALARM Overfitting, since step 400.")
    assert text.endswith("Try: Stop early.")
    assert text.isprintable()
    assert len(message(VERDICT, "x" * 5000)) == MAX_TEXT


def test_the_terminal_gets_the_line_on_stderr(capsys):
    TerminalAlert(bell=True).send(VERDICT, "digits")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "\a" + message(VERDICT, "digits") + "\n"


# The desktop ------------------------------------------------------------------------------------


def program(folder, code):
    path = folder / "notify-send"
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)


def test_the_desktop_gets_title_and_text_as_arguments(tmp_path, monkeypatch):
    program(tmp_path, f'printf "%s|" "$@" > {tmp_path}/said')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    DesktopAlert().send(VERDICT, "-u $(id) digits")
    said = (tmp_path / "said").read_text().split("|")
    assert said[:3] == ["--app-name=TrainVitals", "--", "TrainVitals: Overfitting"]
    assert said[3].startswith("-u $(id) digits: ALARM")


def test_a_desktop_without_the_program_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AlertError, match="libnotify-bin"):
        DesktopAlert().send(VERDICT, "digits")


def test_a_program_that_fails_is_told(tmp_path, monkeypatch):
    program(tmp_path, "exit 4")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(AlertError, match="exit code 4"):
        DesktopAlert().send(VERDICT, "digits")


# The webhook ------------------------------------------------------------------------------------


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)))
        self.send_response(302 if self.path == "/redirect" else 500 if self.path == "/broken" else 200)
        self.send_header("Location", "/other")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("makes its certificate with openssl")
    folder = tmp_path_factory.mktemp("certificate")
    key, pem = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", pem], check=True, capture_output=True,
    )  # fmt: skip
    return key, pem


@contextmanager
def served(certificate):
    key, pem = certificate
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.received = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def address(server, path):
    return f"https://localhost:{server.server_address[1]}{path}"


def test_a_webhook_gets_the_verdict_as_json(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    with served(certificate) as server:
        WebhookAlert(address(server, "/services/SECRET")).send(VERDICT, "digits")
    ((path, body),) = server.received
    assert path == "/services/SECRET"
    assert body == {"text": message(VERDICT, "digits"), "run": "digits", "condition": "overfitting",
                    "state": "alarm", "since": 400, "confidence": 0.9}  # fmt: skip


@pytest.mark.parametrize(("path", "words"), [("/redirect", "redirects are not followed"), ("/broken", "status 500")])
def test_a_webhook_that_redirects_or_fails_is_told_without_its_secret(certificate, monkeypatch, path, words):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    with served(certificate) as server, pytest.raises(AlertError, match=words) as found:
        WebhookAlert(address(server, f"{path}#SECRET")).send(VERDICT, "digits")
    assert "SECRET" not in str(found.value)
    assert [p for p, _ in server.received] == [path]


def test_a_webhook_whose_certificate_nobody_signed_gets_nothing(certificate):
    with served(certificate) as server, pytest.raises(AlertError):
        WebhookAlert(address(server, "/hook")).send(VERDICT, "digits")
    assert server.received == []


def test_a_webhook_that_does_not_answer_is_given_up(certificate, monkeypatch):
    monkeypatch.setattr("trainvitals.alerts.webhook.SECONDS", 0.2)
    with pytest.raises(AlertError, match="localhost"), _silent_port() as port:
        WebhookAlert(f"https://localhost:{port}/hook").send(VERDICT, "digits")


@pytest.mark.parametrize("url", ["http://hooks.example/x", "file:///etc/passwd", "https://", "hooks.example"])
def test_only_https_is_taken(url):
    with pytest.raises(ValueError, match="expected an https:// address"):
        WebhookAlert(url)


def test_its_repr_has_no_address():
    assert "SECRET" not in repr(WebhookAlert("https://hooks.example/SECRET"))


@contextmanager
def _silent_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# Mail -------------------------------------------------------------------------------------------


class MailServer:
    """Stands in for `smtplib.SMTP`: what matters is the order of the calls, and what is sent."""

    def __init__(self, host, port, timeout, **options):
        self.calls = [("connect", host, port, timeout)]
        MailServer.last = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def starttls(self, context):
        assert context.verify_mode == ssl.CERT_REQUIRED
        self.calls.append(("starttls",))

    def login(self, user, password):
        self.calls.append(("login", user, password))

    def send_message(self, mail):
        self.calls.append(("send", mail))


def test_a_mail_is_sent_over_an_encrypted_connection(monkeypatch):
    monkeypatch.setattr(smtplib, "SMTP", MailServer)
    monkeypatch.setenv("TRAINVITALS_SMTP_PASSWORD", "secret")
    MailAlert("reader@example.org", "mail.example.org", user="me@example.org").send(VERDICT, HOSTILE)
    calls = MailServer.last.calls
    assert [c[0] for c in calls] == ["connect", "starttls", "login", "send"]
    mail = calls[-1][1]
    assert mail["To"] == "reader@example.org"
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("TrainVitals: alarm Overfitting, run Bcc:")
    assert "The held-out loss rises." in mail.get_content()


def test_port_465_is_encrypted_from_the_start(monkeypatch):
    monkeypatch.setattr(smtplib, "SMTP_SSL", MailServer)
    MailAlert("reader@example.org", "mail.example.org", 465).send(VERDICT, "digits")
    assert [c[0] for c in MailServer.last.calls] == ["connect", "send"]


def test_a_server_without_encryption_gets_no_mail(monkeypatch):
    def refuse(self, context):
        raise smtplib.SMTPNotSupportedError("STARTTLS extension not supported by server.")

    monkeypatch.setattr(smtplib, "SMTP", MailServer)
    monkeypatch.setattr(MailServer, "starttls", refuse)
    with pytest.raises(AlertError, match=r"mail[.]example"):
        MailAlert("reader@example.org", "mail.example.org").send(VERDICT, "digits")
    assert [c[0] for c in MailServer.last.calls] == ["connect"]


def test_no_delivery_may_take_long():
    assert alert_module.SECONDS <= 10
