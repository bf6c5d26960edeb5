"""What tests that start a server in a child process need."""

import signal
import socket


def heeding_ctrl_c():
    """Give as `preexec_fn`: where tests run in the background of a shell, Ctrl-C is off, for children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def unused_port():
    """A port that the system gives to nobody else soon: other workers' tests count up from the default one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
