"""A new run arrives: it is said, and shown at once where the reader follows the newest run."""

from __future__ import annotations

import streamlit as st

from trainvitals.schema import RunSummary
from trainvitals.store.errors import StoreError
from trainvitals.views.run_picker import LIST_SECONDS, PARAMETER, chosen_id, runs_in
from trainvitals.views.tab import paced
from trainvitals.views.words import clean, plain

FOLLOW, FOLLOWED, SEEN = "follow", "followed", "newest_seen"


def newest(runs: list[RunSummary]) -> RunSummary | None:
    """Return the run that began last among the readable ones."""
    return max((run for run in runs if run.problem is None), key=lambda run: run.started or 0.0, default=None)


def follow_newest(store: str) -> None:
    """Show the switch, and what came since the page was opened; it looks for new runs on its own."""
    st.toggle("Follow the newest run", key=FOLLOW, bind="query-params",
              help="Changes to a new run as soon as it begins. Kept in the address, for a second screen.")  # fmt: skip

    @st.fragment(run_every=paced(LIST_SECONDS))
    def part() -> None:
        try:
            run = newest(runs_in(store))
        except StoreError:
            return  # the page says it
        if run is None:
            return
        if st.session_state.get(FOLLOW):
            is_new, st.session_state[FOLLOWED] = run.id != st.session_state.get(FOLLOWED), run.id
            if is_new and run.id != chosen_id():  # a run that the reader picked since stays until the next arrives
                show(run.id)
                st.rerun()
            return
        seen = st.session_state.setdefault(SEEN, run.id)
        if run.id not in (seen, chosen_id()):
            st.caption(f"A new run has begun: {plain(run.name, 60)}.")
            if st.button("Show it", key="show-newest", help=clean(run.id, 80), width="stretch"):
                show(run.id)
                st.rerun()

    part()


def show(run_id: str) -> None:
    """Make a run the one that the pages show, and name it in the address."""
    st.session_state["shown_run"] = st.session_state[SEEN] = run_id
    st.query_params[PARAMETER] = run_id
