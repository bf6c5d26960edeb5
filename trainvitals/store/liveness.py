"""Is the process that writes a run still there? Statuses from the run's last words and its heartbeat."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import psutil

from trainvitals.schema import Status

# Sixty missed heartbeats of 0.5 s: a laptop that slept or a long kernel is not called stalled at once.
STALLED_AFTER_SECONDS = 30.0
# psutil derives start times from the time of boot, which clock corrections shift by up to a second.
START_TIME_TOLERANCE_SECONDS = 2.0


def this_process() -> dict[str, Any]:
    """Return what tells this process from every other: host, container, process id and start time."""
    started = psutil.Process().create_time()
    return {"host": _host(), "namespace": _namespace(), "pid": os.getpid(), "started": started}


def _host() -> str:
    """Return the host's name and, on Linux, its boot: after a reboot no process of before is alive."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{socket.gethostname()}/{file.read().strip()}"
    except OSError:
        return socket.gethostname()


def _namespace() -> str:
    """Return which process ids are meant: containers of one host have their own (Linux)."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def is_gone(process: Mapping[str, Any]) -> bool | None:
    """Tell whether a process has ended; None when it ran on another host or in another container."""
    here, there = _host(), str(process.get("host"))
    if here.partition("/")[0] != there.partition("/")[0]:
        return None
    if here != there:
        return True  # same host, another boot
    if process.get("namespace") != _namespace():
        return None
    try:
        found = psutil.Process(int(process["pid"]))
        if abs(found.create_time() - float(process["started"])) > START_TIME_TOLERANCE_SECONDS:
            return True  # the id was given to another process
        return found.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
    except (psutil.AccessDenied, KeyError, TypeError, ValueError):
        return None


def status_of(recorded: str, heartbeat: float, process: Mapping[str, Any], now: float | None = None) -> Status:
    """Return the status of a run from its last recorded one, its last heartbeat and its process.

    A run that said goodbye keeps its word. Otherwise it is crashed as soon as its process is gone
    from this host, stalled when its heartbeat is older than 30 seconds, and live else.
    """
    if recorded in (Status.FINISHED, Status.CRASHED):
        return Status(recorded)
    if is_gone(process):
        return Status.CRASHED
    age = (time.time() if now is None else now) - heartbeat
    return Status.STALLED if age > STALLED_AFTER_SECONDS else Status.LIVE
