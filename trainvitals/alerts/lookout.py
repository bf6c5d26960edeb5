"""A thread that looks at a run's verdicts now and then, and passes on what is new."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from trainvitals.alerts.alert import Alert, AlertError
from trainvitals.alerts.onsets import Onsets
from trainvitals.schema import Verdict, VerdictState
from trainvitals.store.reader import RunReader
from trainvitals.verdicts.engine import judge
from trainvitals.verdicts.run_facts import RunFacts
from trainvitals.verdicts.source import StoreSource

SECONDS_BETWEEN = 5.0  # two looks; longer where a look is slow, so that looking takes 2 % of one core at most
_SHARE = 0.02


class Lookout:
    """Looks at a run's verdicts in a thread of its own, and tells alerts of alarms there.

    What has changed waits in `take()` for whoever wants to hear of it in his own thread.

    Args:
        verdicts: gives the verdicts as they are now.
        run_name: of the run, for the alerts.
        alerts: told of every condition that becomes an alarm, once per onset.
        seconds_between: two looks.
        keep: keep what has changed for `take()`.
    """

    def __init__(
        self,
        verdicts: Callable[[], Sequence[Verdict]],
        run_name: str,
        *,
        alerts: Sequence[Alert] = (),
        seconds_between: float = SECONDS_BETWEEN,
        keep: bool = False,
    ) -> None:
        self._verdicts = verdicts
        self._run_name = run_name
        self._alerts = alerts
        self._seconds_between = seconds_between
        self._onsets = Onsets()
        self._changed: deque[Verdict] | None = deque() if keep else None
        self._told: set[str] = set()  # conditions in alarm that alerts were told of, until they are healthy again
        self._stop = threading.Event()
        self._failed: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="trainvitals-lookout", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def take(self) -> list[Verdict]:
        """Return what has changed since the last call; a few nanoseconds when nothing has."""
        if not self._changed:
            return []
        return [self._changed.popleft() for _ in range(len(self._changed))]

    def close(self) -> None:
        """Look once more, so that the end of the run is judged too, and stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def look(self) -> None:
        """Look now, in this thread."""
        changed = self._onsets.changed(self._verdicts())
        if self._changed is not None:
            self._changed.extend(changed)
        for verdict in changed:
            self._tell(verdict)

    def _run(self) -> None:
        pause = self._seconds_between
        while not self._stop.wait(pause):
            started = time.thread_time()
            self._look_guarded()
            pause = max(self._seconds_between, (time.thread_time() - started) / _SHARE)
        self._look_guarded()

    def _look_guarded(self) -> None:
        try:
            self.look()
        except Exception as error:  # a run file that is being moved, a full disk: the next look may succeed
            self._say_once(f"the verdicts of {self._run_name} could not be read: {type(error).__name__}: {error}")

    def _tell(self, verdict: Verdict) -> None:
        if verdict.state == VerdictState.HEALTHY:
            self._told.discard(verdict.condition)
        elif verdict.state == VerdictState.ALARM and verdict.condition not in self._told:
            self._told.add(verdict.condition)
            for alert in self._alerts:
                self._send(alert, verdict)

    def _send(self, alert: Alert, verdict: Verdict) -> None:
        try:
            alert.send(verdict, self._run_name)
        except AlertError as error:
            self._say_once(f"an alert was not delivered: {error}")
        except Exception as error:
            self._say_once(f"{type(alert).__name__} failed: {type(error).__name__}: {error}")

    def _say_once(self, message: str) -> None:
        if message not in self._failed:
            self._failed.add(message)
            logging.getLogger(__name__).warning("trainvitals: %s", message)


def lookout_on(path: str | os.PathLike[str], run_name: str, alerts: Sequence[Alert], *, keep: bool) -> Lookout:
    """Return a lookout on a run file that is being written, not started yet."""
    source = StoreSource(RunReader(path))
    return Lookout(lambda: judge(RunFacts(source)), run_name, alerts=alerts, keep=keep)
