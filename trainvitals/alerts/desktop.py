"""A notification of the desktop that the process runs on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from trainvitals.alerts.alert import SECONDS, Alert, AlertError, message
from trainvitals.schema import Verdict

# macOS: the text is an argument of the script, never a part of it.
_APPLE_SCRIPT = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"


@dataclass(frozen=True)
class DesktopAlert(Alert):
    """Show a notification: by `notify-send` (Linux, from libnotify) or `osascript` (macOS)."""

    def send(self, verdict: Verdict, run_name: str) -> None:
        """Show the notification.

        Raises:
            AlertError: if this desktop has neither program, or it fails.
        """
        command = _command(f"TrainVitals: {verdict.title}", message(verdict, run_name))
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            raise AlertError(f"expected a desktop notification, got {type(error).__name__} from {command[0]}") from None
        if done.returncode:
            raise AlertError(f"expected a desktop notification, got exit code {done.returncode} from {command[0]}")


def _command(title: str, text: str) -> Sequence[str]:
    if program := shutil.which("notify-send"):
        return [program, "--app-name=TrainVitals", "--", title, text]
    if program := shutil.which("osascript"):
        return [program, "-e", _APPLE_SCRIPT, "--", title, text]
    raise AlertError(
        "expected notify-send or osascript for a desktop notification, got neither on this machine; "
        "install libnotify-bin, or use another alert"
    )
