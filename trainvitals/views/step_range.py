"""The steps that all charts show: dragged over in a chart or typed in the sidebar, kept in the address.

Streamlit (1.67) names a chart by what is drawn in it, key or no key (`key_as_main_identity=False` in its
`elements/plotly_chart.py`): with each new point it is mounted anew, and a zoom made inside it is gone. So the
steps are chosen for all charts: by the two fields, and of a run that is over by a drag too. While a run goes on, a
drag would be lost to the next point.
"""

from __future__ import annotations

import math

import streamlit as st

Window = tuple[int | None, int | None]  # first and last step that are drawn; None: as far as there is


def chosen_steps() -> Window:
    """Return the chosen steps; an end before the start chooses nothing."""
    first, last = st.session_state.get("from"), st.session_state.get("to")
    return (first, last) if first is None or last is None or first < last else (None, None)


def step_range() -> None:
    """Show the two fields, one beside the other, and the way back to all steps."""
    left, right = st.columns(2)
    left.number_input("From step", min_value=0, value=None, step=1, key="from", bind="query-params",
                      placeholder="first")  # fmt: skip
    right.number_input("To step", min_value=1, value=None, step=1, key="to", bind="query-params",
                       placeholder="last",
                       help="Of all charts; kept while a run goes on. When over: drag in a chart.")  # fmt: skip
    if chosen_steps() != (None, None):
        st.button("Show all steps", key="all-steps", on_click=_all_steps, width="stretch")


def _all_steps() -> None:
    st.session_state["from"] = st.session_state["to"] = None


def dragged(key: str) -> None:
    """Take the stretch that was dragged over in the chart of that key; called before the page is drawn again."""
    event = st.session_state.get(key)
    window = stretch_of(event["selection"]["box"]) if event else None
    if window is not None:
        st.session_state["from"], st.session_state["to"] = window
        st.session_state["steps_dragged"] = True


def stretch_of(boxes: list[dict]) -> tuple[int, int] | None:
    """Return the first and the last whole step inside the box that was dragged last; None if it holds none.

    >>> stretch_of([{"x": [812.4, 103.2], "y": [0.0, 1.0]}])
    (103, 813)
    """
    if not boxes or not boxes[-1].get("x"):
        return None
    edges = [float(x) for x in boxes[-1]["x"]]
    if not all(math.isfinite(x) for x in edges):
        return None
    first, last = max(math.floor(min(edges)), 0), math.ceil(max(edges))
    return (first, last) if last - first >= 1 else None


def rerun_if_dragged() -> None:
    """Draw the whole app again after a drag: the fields in the sidebar and the address follow."""
    if st.session_state.pop("steps_dragged", False):
        st.rerun()
