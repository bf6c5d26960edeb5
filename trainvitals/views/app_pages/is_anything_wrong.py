"""Is anything wrong? The verdicts; then what the run is doing, the last value of everything, and what it cost."""

import time
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from trainvitals.views import health
from trainvitals.views.card import card
from trainvitals.views.cards import grid
from trainvitals.views.page import show_page, status_line
from trainvitals.views.run_view import RunView, last_value
from trainvitals.views.verdict_cards import verdict_list
from trainvitals.views.words import clean, clock, duration, number, plain, share, steps

MAX_EVENTS = 200
ROW_HEIGHT = 28  # pixels: the first two questions fit on 720
MAX_ROWS = 30  # of one table; more are scrolled


def body(view: RunView) -> None:
    """Show the page."""
    status_line(view)
    verdict_list(view)
    _numbers(view)
    st.caption(plain(health.one_line(view)))
    _without_value(view)
    _events(view)
    _latest(view)
    _cost(view)
    costs = [card(description) for description in health.cost_descriptions(view)]
    grid(view, [*(card(description) for description in view.unasked()), *costs])


def _numbers(view: RunView) -> None:
    rate, part = health.step_rate(view), last_value(view, "probe.share")
    with st.container(horizontal=True, gap="small"):
        st.metric("Step", "–" if view.last_step is None else steps(view.last_step), border=True)
        st.metric("Steps a second", number(rate, 3), border=True, help="Over the last measured steps.")
        st.metric("Time spent measuring", "–" if part is None else share(part), border=True,
                  help="Share of the wall time since the run began that went into measuring.")  # fmt: skip
        if view.run.started:
            end = time.time() if view.status == "live" else view.updated or view.run.started
            st.metric("Running" if view.status == "live" else "Ran", duration(end - view.run.started), border=True)


def _without_value(view: RunView) -> None:
    table = health.without_value(view)
    if len(table):
        with st.expander(f"{len(table)} of them {'has' if len(table) == 1 else 'have'} no value now, and why"):
            st.dataframe(table, key="without-value", hide_index=True)


def _events(view: RunView) -> None:
    events = view.events[view.events["message"] != ""]  # the plain end is said by the status
    if events.empty:
        return
    shown = events.iloc[::-1].head(MAX_EVENTS)
    st.subheader("What the run said", anchor=False)
    st.dataframe(
        {"Step": list(shown["step"]), "Time": [clock(t) for t in shown["time"]],
         "Kind": [clean(kind, 40) for kind in shown["kind"]],
         "Message": [clean(message, 2000) for message in shown["message"]]},
        key="events", hide_index=True, height=min(38 + 35 * len(shown), 220),
    )  # fmt: skip


def _latest(view: RunView) -> None:
    table = health.latest_table(view)
    st.subheader("Latest values", anchor=False)
    if table.empty:
        st.info("Nothing was measured yet: the first values come with the first measured step.")
        return
    free: list[DeltaGenerator] = []
    for index, (question, rows) in enumerate(table.groupby("Question", sort=False)):
        free = free or list(st.columns(2, gap="small"))
        with free.pop(0), st.container(gap="xsmall"):
            _group(index, str(question), rows)


def _group(index: int, question: str, rows: pd.DataFrame) -> None:
    """Show the last values of one page, all of them without scrolling unless there are very many."""
    st.markdown(f"**{plain(question or 'Logged by the training script')}**")
    widths: dict[str, Any] = {
        "Metric": st.column_config.TextColumn(width=265), "Latest": st.column_config.TextColumn(width=125),
        "Step": st.column_config.NumberColumn(width=50),
    }  # fmt: skip
    st.dataframe(
        rows[list(widths)], key=f"latest-{index}", hide_index=True, column_config=widths,
        row_height=ROW_HEIGHT, height="content" if len(rows) <= MAX_ROWS else ROW_HEIGHT * MAX_ROWS,
    )  # fmt: skip


def _cost(view: RunView) -> None:
    table = health.cost_table(view)
    if table.empty:
        return
    st.subheader("What was measured, and what it cost", anchor=False)
    st.dataframe(table, key="cost", hide_index=True, row_height=ROW_HEIGHT)


show_page("Is anything wrong?", body)
