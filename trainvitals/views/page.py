"""The frame of every page: the question, the answer in one sentence, the cards, and what was not recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import streamlit as st

from trainvitals.schema import Status
from trainvitals.views.card import Card, card
from trainvitals.views.cards import grid
from trainvitals.views.chart_options import chosen_options
from trainvitals.views.health import freshness
from trainvitals.views.live import refreshed
from trainvitals.views.page_verdicts import verdict_lines
from trainvitals.views.run_picker import current
from trainvitals.views.run_view import RunView
from trainvitals.views.step_range import rerun_if_dragged
from trainvitals.views.store_folder import store_folder
from trainvitals.views.words import plain, steps

BADGES: dict[Status, Literal["green", "orange", "red", "gray"]] = {
    Status.LIVE: "green", Status.STALLED: "orange", Status.CRASHED: "red", Status.FINISHED: "gray",
}
FACT_LENGTH = 600  # characters
MAX_UNFOLDED = 4  # other cards: more wait behind a fold


def show_page(title: str, body: Callable[[RunView], None]) -> None:
    """Show a page of the picked run, fresh as long as the run is live."""
    st.header(title, anchor=False)
    summary = current(store_folder())
    if summary is not None:
        refreshed(summary, partial(_shown, body))


def _shown(body: Callable[[RunView], None], view: RunView) -> None:
    rerun_if_dragged()
    view.options = chosen_options()
    body(view)


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
        verdict_lines(view, question)
        sentence = fact(view)
        if sentence:
            st.markdown(plain(sentence, FACT_LENGTH))
        leading = list(lead(view))
        names = [name for item in leading for name in ([item] if isinstance(item, str) else item.names)]
        rest = [d.name for d in view.metrics(question) if d.name not in names]
        shown = [c for c in _cards(view, leading) if c.is_recorded(view)]
        grid(view, shown)
        _rest(view, rest)
        not_recorded(question, [name for name in dict.fromkeys(names) if name not in view.latest], bool(shown or rest))

    show_page(question, body)


def _rest(view: RunView, names: Sequence[str]) -> None:
    """Show the other cards of the page: behind a fold when they are many, and drawn only when it is open."""
    if len(names) <= MAX_UNFOLDED:
        grid(view, _cards(view, names))
        return
    fold = st.expander(f"More measured for this question: {len(names)} charts", key="more", bind="query-params",
                       on_change="rerun")  # fmt: skip
    if fold.open:
        with fold:
            grid(view, _cards(view, names))


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


def not_recorded(question: str, names: Sequence[str], has_others: bool) -> None:
    """Say what the page could show, and the line of code that records it."""
    if not names:
        return
    code = f'with tv.watch(model, optimizer, loss=loss_fn, train=(x, y), heldout=(xv, yv),\n' \
           f'              probes=["default", {", ".join(map(json.dumps, names))}]) as run:'  # fmt: skip
    if has_others:
        with st.expander(f"Not recorded in this run: {len(names)} more for this page"):
            st.markdown(f"{plain(', '.join(names), 600)}. To record them:")
            st.code(code, language="python", wrap_lines=True)
    else:
        st.info(f"Nothing that answers “{plain(question)}” was recorded in this run. The line below records what "
                'this page shows; `probes="full"` records everything.')  # fmt: skip
        st.code(code, language="python", wrap_lines=True)
