"""How a page stays fresh: fragments that run again on their own, as often as the run deserves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from trainvitals.run import open_run
from trainvitals.schema import RunSummary, Status
from trainvitals.store.errors import StoreError
from trainvitals.store.postgres_address import is_address
from trainvitals.views.run_view import RunCache, RunView
from trainvitals.views.step_range import chosen_steps
from trainvitals.views.store_folder import store_folder
from trainvitals.views.tab import paced
from trainvitals.views.words import plain

LIVE_SECONDS = 1.0  # a new point is promised within 3 s: 0.5 s in the writer, one refresh, one drawing
STALLED_SECONDS = 5.0  # it may wake up
CACHED_RUNS = 16


def refresh_seconds(status: Status | None) -> float | None:
    """Return the seconds between two refreshes, None for a run that is over.

    >>> refresh_seconds(Status.LIVE), refresh_seconds(Status.FINISHED)
    (1.0, None)
    """
    return {Status.LIVE: LIVE_SECONDS, Status.STALLED: STALLED_SECONDS}.get(status) if status else None


@st.cache_resource(max_entries=CACHED_RUNS, show_spinner=False)
def _cache(path: str, started: float | None) -> RunCache:
    """Return what is kept of one run. A new run at the same path has another start."""
    return RunCache()


@contextmanager
def opened(summary: RunSummary) -> Iterator[RunView]:
    """Open a run for one refresh."""
    store = store_folder()
    with open_run(summary.id, store) if is_address(store) else open_run(summary.path) as run:
        yield RunView(run, _cache(summary.path, summary.started), chosen_steps())


def refreshed(summary: RunSummary, body: Callable[[RunView], None]) -> None:
    """Draw `body` now and again while the run is live and somebody looks.

    When its status changes, the page starts anew; so it does when a hidden tab is seen again.
    """
    seconds = paced(refresh_seconds(summary.status))

    @st.fragment(run_every=seconds)
    def part() -> None:
        try:
            with opened(summary) as view:
                if paced(refresh_seconds(view.status)) != seconds:
                    st.rerun()
                body(view)
        except StoreError as error:  # the database is away for a moment, or the file was moved: looked for again
            st.warning(plain(str(error), 600))

    part()
