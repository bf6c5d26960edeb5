"""Who is told when a verdict turns: the terminal, the desktop, a web address, a mailbox, or code of your own.

Pass them to `trainvitals.watch(..., alerts=[...])`, or follow a run from another process with
`trainvitals verdict RUN --follow`. Each onset is told once.
"""

from trainvitals.alerts.alert import Alert, AlertError
from trainvitals.alerts.desktop import DesktopAlert
from trainvitals.alerts.mail import MailAlert
from trainvitals.alerts.terminal import TerminalAlert
from trainvitals.alerts.webhook import WebhookAlert

__all__ = ["Alert", "AlertError", "DesktopAlert", "MailAlert", "TerminalAlert", "WebhookAlert"]
