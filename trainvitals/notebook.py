"""A run in a notebook: a small picture that follows it as long as it is live.

`run` at the end of a cell shows it, for a run that is being watched as for one that was opened. Later cells may train:
a thread reads the run's file, as the dashboard does, and hands the notebook a new picture where something has changed.
Outside a notebook nothing of this is loaded and no thread begins.
"""

from __future__ import annotations

import contextvars
import threading
import time
from typing import Any

from trainvitals.run import Run
from trainvitals.schema import Status
from trainvitals.store.errors import StoreError

SECONDS_BETWEEN = 2.0
_SHARE = 0.02  # of a core that drawing may take
_FOLLOWED = (Status.LIVE, Status.STALLED)
_following: dict[str, threading.Event] = {}  # by run id: what stops its thread


def show(run: Run) -> None:
    """Show a run in the cell that is being run, and follow it; on a terminal print what it is."""
    from IPython.core.getipython import get_ipython
    from IPython.display import HTML, display

    if not hasattr(get_ipython(), "kernel"):
        print(repr(run))
        return
    handle = display(HTML(_picture(run)), display_id=True)
    stop_following(run.id)
    if handle is not None and run.status in _FOLLOWED:
        stop = _following[run.id] = threading.Event()
        here = contextvars.copy_context()  # what is shown belongs to this cell
        thread = threading.Thread(target=here.run, args=(_follow, run, handle, stop), daemon=True,
                                  name="trainvitals-notebook")  # fmt: skip
        thread.start()


def stop_following(run_id: str) -> None:
    """Leave the picture of a run as it is: a newer one follows it, or none."""
    if (stop := _following.pop(run_id, None)) is not None:
        stop.set()


def _follow(run: Run, handle: Any, stop: threading.Event) -> None:
    from IPython.display import HTML

    pause, shown, is_last = SECONDS_BETWEEN, "", False
    while not is_last and not stop.wait(pause):
        started = time.thread_time()
        try:
            is_last = run.status not in _FOLLOWED  # asked first: what comes after it is in the picture
            picture = _picture(run)
        except (StoreError, OSError):  # closed, moved, or away for a moment
            if getattr(run, "_is_closed", False):
                break
            continue
        if picture != shown:
            handle.update(HTML(picture))
            shown = picture
        pause = max(SECONDS_BETWEEN, (time.thread_time() - started) / _SHARE)
    if _following.get(run.id) is stop:
        del _following[run.id]


def _picture(run: Run) -> str:
    from trainvitals.views.tiles import glance

    return glance(run)
