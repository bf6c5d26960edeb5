"""The frame of every page: the question, the answer in one sentence, the cards, and what was not recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Literal

import streamlit as st

from trainvitals.schema import Status
from trainvitals.views.cards import Card, card, grid
from trainvitals.views.health import freshness
from trainvitals.views.live import refreshed
from trainvitals.views.run_picker import current
from trainvitals.views.run_view import RunView
from trainvitals.views.store_folder import store_folder
from trainvitals.views.words import plain, steps

BADGES: dict[Status, Literal["green", "orange", "red", "gray"]] = {
    Status.LIVE: "green", Status.STALLED: "orange", Status.CRASHED: "red", Status.FINISHED: "gray",
}
FACT_LENGTH = 600  # characters


def show_page(title: str, body: Callable[[RunView], None]) -> None:
    """Show a page of the picked run, fresh as long as the run is live."""
    st.header(title, anchor=False)
    summary = current(store_folder())
    if summary is not None:
        refreshed(summary, body)


def show_question(
    question: str, fact: Callable[[RunView], str], lead: Callable[[RunView], Iterable[Card | str]]
) -> None:
    """Show the page of a question: its lead cards, then a card for everything else recorded for it.

    Args:
        question: the page's title, and the question of the metrics on it.
        fact: gives the sentence on top.
        lead: gives the first cards; a metric's name stands for its own card.
    """

    def body(view: RunView) -> None:
        status_line(view)
        sentence = fact(view)
        if sentence:
            st.markdown(f"**{plain(sentence, FACT_LENGTH)}**")
        leading = list(lead(view))
        names = [name for item in leading for name in ([item] if isinstance(item, str) else item.names)]
        rest = [d.name for d in view.metrics(question) if d.name not in names]
        grid(view, list(_cards(view, [*leading, *rest])))
        _not_recorded([name for name in dict.fromkeys(names) if name not in view.latest])

    show_page(question, body)


def status_line(view: RunView) -> None:
    """Show name, freshness and step of the run on one line."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(str(view.status), color=BADGES[view.status])
        words = [view.run.name, freshness(view.status, view.updated, time.time())]
        if view.last_step is not None:
            words.append(f"step {steps(view.last_step)}")
        st.caption(plain(" · ".join(words)))


def _cards(view: RunView, items: Iterable[Card | str]) -> Iterable[Card]:
    for item in items:
        if not isinstance(item, str):
            yield item
        elif item in view.latest:
            yield card(view.descriptions[item])


def _not_recorded(names: list[str]) -> None:
    """Say what the page could show and how to record it."""
    if names:
        quoted = ", ".join(f'"{name}"' for name in names)
        st.info(f"Not recorded in this run: {plain(quoted, 600)}. To record them, name them in "
                '`tv.watch(..., probes=[...])`, or take `probes="full"`.')  # fmt: skip
