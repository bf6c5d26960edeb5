"""The steps that all charts show: chosen in the sidebar, kept in the address and while a run goes on.

Streamlit (1.67) mounts a chart anew with each new point, and a zoom made inside it is gone then.
"""

from __future__ import annotations

import streamlit as st

Window = tuple[int | None, int | None]  # first and last step that are drawn; None: as far as there is


def chosen_steps() -> Window:
    """Return the chosen steps; an end before the start chooses nothing."""
    first, last = st.session_state.get("from"), st.session_state.get("to")
    return (first, last) if first is None or last is None or first < last else (None, None)


def step_range() -> None:
    """Show the two fields, one beside the other."""
    left, right = st.columns(2)
    left.number_input("From step", min_value=0, value=None, step=1, key="from", bind="query-params",
                      placeholder="first")  # fmt: skip
    right.number_input("To step", min_value=1, value=None, step=1, key="to", bind="query-params",
                       placeholder="last", help="Zoom all charts; it stays while the run goes on.")  # fmt: skip
