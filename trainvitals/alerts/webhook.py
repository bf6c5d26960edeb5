"""A POST to a web address: Slack, Mattermost, Teams, ntfy and most others read its `text`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from trainvitals.alerts.alert import SECONDS, Alert, AlertError, message
from trainvitals.schema import Verdict


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could lead into a private network, so none is followed: it comes back as an error."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class WebhookAlert(Alert):
    """POST JSON to an https address: `text`, `run`, `condition`, `state`, `since`, `confidence`.

    The address often holds a token, so it is in no message and no `repr`. Redirects are not followed, plain
    http is refused, a delivery takes ten seconds at most.

    Args:
        url: https://…

    Raises:
        ValueError: if the address is not https.
    """

    url: str = field(repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(
                f"expected an https:// address, got the scheme {parts.scheme!r} in WebhookAlert; "
                "a verdict is not sent in the clear"
            )

    def send(self, verdict: Verdict, run_name: str) -> None:
        """POST the verdict.

        Raises:
            AlertError: if the address cannot be reached in time, redirects, or answers with an error.
        """
        body = json.dumps({
            "text": message(verdict, run_name), "run": run_name, "condition": verdict.condition,
            "state": verdict.state, "since": verdict.since, "confidence": verdict.confidence,
        }).encode()  # fmt: skip
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"}, method="POST")
        host = urlsplit(self.url).hostname
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=SECONDS):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            hint = "; redirects are not followed: give the final address" if 300 <= error.code < 400 else ""
            raise AlertError(f"expected {host} to take the alert, got HTTP status {error.code}{hint}") from None
        except (OSError, ValueError) as error:
            raise AlertError(f"expected {host} to take the alert, got {type(error).__name__}") from None
