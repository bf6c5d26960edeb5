"""The trainer's end of the process beside it: starts it, hands it snapshots, hears from it.

The trainer's thread copies into shared memory and sends a message of a few bytes, which waits for nobody. A thread
of its own hears what comes back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from multiprocessing.spawn import get_executable
from typing import Any

import torch

from trainvitals.diagnostics.base import Diagnostic
from trainvitals.probes.side import Side
from trainvitals.probes.side_job import Answer, beginning_of, heard, job_of, say
from trainvitals.probes.side_packing import packed
from trainvitals.probes.side_process import Failure, Freed, Start
from trainvitals.probes.side_slot import Slot
from trainvitals.probes.subject import Subject

# Our own code only: a process made by `multiprocessing` would run the user's script again to get at its classes.
_BOOTSTRAP = """
import json, sys
from multiprocessing.connection import Connection
connection, sys.path[:] = Connection(int(sys.argv[1])), json.loads(sys.argv[2])
from trainvitals.probes.side_process import main
main(connection)
"""
_GOODBYE_SECONDS = 5.0  # between the last answer and the end of the process
_BEGINNING = 0  # the slot of what holds for the whole run; the others are for snapshots


class SideLink:
    """A running process beside the trainer.

    Args:
        side: how it is to run.
        subject: what is measured.
        diagnostics: that may be asked for.
        hear: is handed each answer, in a thread of its own.

    Raises:
        Exception: whatever says that the subject cannot be sent there, or that no process can be started.
    """

    def __init__(
        self, side: Side, subject: Subject, diagnostics: Sequence[Diagnostic], hear: Callable[[Answer], None]
    ) -> None:
        beginning = packed(beginning_of(subject, diagnostics))
        packed(job_of(subject, diagnostics, 0, 0.0))  # what cannot travel is to be known before the run begins
        self.failure: str | None = None  # why it answers no more
        self._num_sent = 0
        self._num_answered = 0  # written by the thread that hears only
        self._subject = subject
        self._hear = hear
        self._slots = [Slot() for _ in range(1 + side.num_waiting)]
        self._free = deque(range(1, len(self._slots)))
        self._has_said_goodbye = self._is_given_up = False
        self._connection, theirs = Pipe()
        device = device_for(side, _device_of(subject))
        try:
            self._process = _started(side, self._slots, theirs, device)
            descriptors = tuple(slot.descriptor for slot in self._slots)
            say(self._connection, Start(os.getpid(), descriptors, side.num_threads, side.niceness, device))
            say(self._connection, (_BEGINNING, self._slots[_BEGINNING].write(*beginning)))
        except BaseException:  # a process that was told nothing ends with its connection
            self._connection.close()
            self._close_slots()
            raise
        finally:
            theirs.close()
        self._thread = threading.Thread(target=self._listen, name="trainvitals side", daemon=True)
        self._thread.start()

    @property
    def has_room(self) -> bool:
        """Whether a snapshot can be taken now."""
        return bool(self._free)

    @property
    def num_waiting(self) -> int:
        """Snapshots without an answer."""
        return self._num_sent - self._num_answered

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def send(self, diagnostics: Sequence[Diagnostic], step: int) -> None:
        """Copy the subject as it stands, to be measured there. Only where `has_room`.

        Raises:
            Exception: whatever says that it cannot be copied or sent.
        """
        body, tensors = packed(job_of(self._subject, diagnostics, step, time.time()))
        index = self._free.popleft()
        try:
            message = self._slots[index].write(body, tensors)
        except BaseException:
            self._free.append(index)
            raise
        self._num_sent += 1
        say(self._connection, (index, message))

    def close(self, seconds: float) -> int:
        """Wait for what is being measured, for so long at most; return how many answers are lost."""
        try:
            if self.failure is None:
                self._say_goodbye()
                self._thread.join(min(seconds, threading.TIMEOUT_MAX))
        finally:  # also when Ctrl-C ends the wait
            if self._process.poll() is None and self._thread.is_alive():
                self._is_given_up = True
                self._process.kill()
            self._thread.join(_GOODBYE_SECONDS)
            self._wait_for_end()
            self._connection.close()
            self._close_slots()
        return self.num_waiting

    def _close_slots(self) -> None:
        for slot in self._slots:
            slot.close()

    def _say_goodbye(self) -> None:
        try:
            say(self._connection, None)
            self._has_said_goodbye = True
        except OSError:  # it has ended already
            return

    def _wait_for_end(self) -> None:
        try:
            self._process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # In a thread of its own ----------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            while True:
                self._take(heard(self._connection))
        except (EOFError, OSError):
            if not self._is_given_up and not (self._has_said_goodbye and self.num_waiting == 0):
                self.failure = self.failure or self._end_in_words()
        except Exception as error:  # an answer that cannot be read
            self.failure = f"an answer that cannot be read ({type(error).__name__}: {error})"

    def _take(self, message: Any) -> None:
        if isinstance(message, Freed):
            if message.slot == _BEGINNING:
                self._slots[_BEGINNING].close()
            else:
                self._free.append(message.slot)
        elif isinstance(message, Answer):
            self._hear(message)
            self._num_answered += 1
        elif isinstance(message, Failure):
            self.failure = message.words

    def _end_in_words(self) -> str:
        try:
            code = self._process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            return "the end of its connection"
        return f"its end by signal {-code}" if code < 0 else f"its end with code {code}"


def device_for(side: Side, device: torch.device) -> str:
    """Return where the process computes, for a model that trains on `device`.

    >>> device_for(Side(), torch.device("cpu")), device_for(Side(device="cuda:1"), torch.device("cuda:0"))
    ('cpu', 'cuda:1')
    """
    if side.device is not None:
        return side.device
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        return "cpu"
    return f"cuda:{((device.index or 0) + 1) % torch.cuda.device_count()}"


def _device_of(subject: Subject) -> torch.device:
    return next(p.device for p in subject.model.parameters() if p.requires_grad)


def _started(side: Side, slots: Sequence[Slot], theirs: Connection, device: str) -> subprocess.Popen[bytes]:
    if getattr(sys, "frozen", False):
        raise RuntimeError("a program without a Python of its own")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(side.num_threads))
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    folders = json.dumps([path for path in sys.path if isinstance(path, str)])
    command = [os.fsdecode(get_executable()), "-P", "-c", _BOOTSTRAP, str(theirs.fileno()), folders]
    return subprocess.Popen(
        command,
        env=os.environ | threads | hidden,
        pass_fds=[theirs.fileno(), *(slot.descriptor for slot in slots)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is for the trainer
    )
