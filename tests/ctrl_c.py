"""A child process that heeds Ctrl-C, also where these tests run in the background of a shell, which turns it off."""

import signal


def heeding_ctrl_c():
    """Give as `preexec_fn`: Python installs its own handler only where the signal is not ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
