"""An e-mail, over a connection that is encrypted or not made."""

from __future__ import annotations

import os
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage

from trainvitals.alerts.alert import SECONDS, Alert, AlertError, message, one_line
from trainvitals.schema import Verdict

PASSWORD = "TRAINVITALS_SMTP_PASSWORD"  # the environment variable: no password stands in a script or a history
_TLS_PORT = 465  # where the connection begins encrypted; elsewhere STARTTLS is required


@dataclass(frozen=True)
class MailAlert(Alert):
    """Send an e-mail: by TLS on port 465, by STARTTLS on any other; never in the clear.

    The password is that of the environment variable TRAINVITALS_SMTP_PASSWORD; without it there is no login.

    Args:
        to: address of the reader.
        host: of the mail server.
        port: of the mail server.
        user: to log in as; the sender too unless told.
        sender: address of the sender.
    """

    to: str
    host: str
    port: int = 587
    user: str = ""
    sender: str = ""

    def send(self, verdict: Verdict, run_name: str) -> None:
        """Send the mail.

        Raises:
            AlertError: if the server cannot be reached in time, has no encryption, or refuses.
        """
        mail = EmailMessage()
        mail["Subject"] = one_line(f"TrainVitals: {verdict.state} {verdict.title}, {run_name}")[:200]
        mail["From"] = self.sender or self.user or self.to
        mail["To"] = self.to
        mail.set_content(message(verdict, run_name) + "\n")
        try:
            self._deliver(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise AlertError(f"expected {self.host} to take the mail, got {type(error).__name__}") from None

    def _deliver(self, mail: EmailMessage) -> None:
        context = ssl.create_default_context()
        if self.port == _TLS_PORT:
            server = smtplib.SMTP_SSL(self.host, self.port, timeout=SECONDS, context=context)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=SECONDS)
        with server:
            if self.port != _TLS_PORT:
                server.starttls(context=context)
            if self.user and (password := os.environ.get(PASSWORD)):
                server.login(self.user, password)
            server.send_message(mail)
