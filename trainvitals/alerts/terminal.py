"""A line on stderr."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from trainvitals.alerts.alert import Alert, message
from trainvitals.schema import Verdict


@dataclass(frozen=True)
class TerminalAlert(Alert):
    """Print one line to stderr, where a training script's warnings go.

    Args:
        bell: ring the terminal's bell.
    """

    bell: bool = False

    def send(self, verdict: Verdict, run_name: str) -> None:
        """Print the line."""
        print(("\a" if self.bell else "") + message(verdict, run_name), file=sys.stderr, flush=True)
