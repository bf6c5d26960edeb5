"""The verdicts of a run: what is found with its evidence, what is healthy, what could not be judged."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Literal

import streamlit as st

from trainvitals.schema import Verdict, VerdictState
from trainvitals.verdicts.condition import Condition, conditions
from trainvitals.verdicts.figures import told
from trainvitals.views import disagreements
from trainvitals.views.cards import CHART_CONFIG
from trainvitals.views.outcome import outcome
from trainvitals.views.run_view import RunView
from trainvitals.views.verdict_pictures import Picture, healthy_pictures, picture
from trainvitals.views.verdict_words import (
    FOUND,
    GLOSSARY,
    coverage,
    evidence_table,
    headline,
    nothing_found,
    timing,
    unknown_table,
    would_change_its_mind,
)
from trainvitals.views.words import clean, plain, steps

COLOURS: Mapping[VerdictState, Literal["red", "orange"]] = {VerdictState.ALARM: "red", VerdictState.WATCH: "orange"}
TEXT_LENGTH = 900  # characters of one summary
_log = logging.getLogger(__name__)


def verdict_list(view: RunView) -> None:
    """Show the answer, a card for all that is found with what follows from it, and a line for the rest."""
    verdicts = view.verdicts
    st.markdown(f"**{plain(headline(verdicts), TEXT_LENGTH)}**")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(plain(coverage(verdicts), TEXT_LENGTH))
        with st.popover("What the words mean", type="tertiary", icon=":material/help:"):
            for word, meaning in GLOSSARY:
                st.markdown(f"**{word}**: {meaning}")
    if not any(v.state in FOUND and not v.is_informational for v in verdicts):
        _healthy_charts(view)
    elif result := outcome(view):
        st.markdown(f"What the network can do now: {_prose(result)}")
    for group in _groups(verdicts):
        with st.container(border=True, gap="small"):
            for index, verdict in enumerate(group):
                if index:
                    st.divider()
                _show(view, verdict)
    healthy, told_already = nothing_found(verdicts)
    if told_already:
        st.caption(f"No finding of their own, what they look for is told above: "
                   f"{plain(', '.join(told_already), TEXT_LENGTH)}.")
    if healthy:
        st.caption(f":green[✓] Checked, and nothing found: {plain(', '.join(healthy), TEXT_LENGTH)}.")
    unknown = unknown_table(verdicts)
    if len(unknown):
        what = f"{len(unknown)} condition{'s' * (len(unknown) > 1)} could not be judged, and why"
        with st.expander(f"{what}: {plain(', '.join(unknown['Condition']), 200)}"):
            st.dataframe(unknown, key="unknown-conditions", hide_index=True)


def _groups(verdicts: Sequence[Verdict]) -> Iterator[list[Verdict]]:
    """Yield what is found, each with what follows from it: they stand behind each other already."""
    group: list[Verdict] = []
    for verdict in (v for v in verdicts if v.state in FOUND):
        if group and verdict.follows not in {v.condition for v in group}:
            yield group
            group = []
        group.append(verdict)
    if group:
        yield group


def _healthy_charts(view: RunView) -> None:
    try:
        found = healthy_pictures(view)
    except Exception:
        _log.exception("the charts of a healthy run cannot be drawn")
        return
    for column, shown in zip(st.columns(max(len(found), 1), gap="small"), found, strict=False):
        with column, st.container(border=True, gap="xsmall"):
            _draw(shown, f"healthy-{shown.title}")


def _show(view: RunView, verdict: Verdict) -> None:
    text, drawn = st.columns([3, 2], gap="small")
    with text:
        _words(view, verdict)
    with drawn:
        _picture(view, verdict)


def _words(view: RunView, verdict: Verdict) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if verdict.is_informational:
            st.badge("to know", color="blue")
        else:
            st.badge(str(verdict.state), color=COLOURS[verdict.state])
        st.markdown(f"**{plain(verdict.title)}**")
        st.caption(plain(timing(verdict)))
    if verdict.relation:
        st.markdown(f":material/subdirectory_arrow_right: *{plain(verdict.relation)}*")
    evidence = told(verdict.evidence) if verdict.head else []
    st.markdown(_prose(verdict.head or verdict.summary))
    if evidence:
        st.markdown("\n".join(f"- At step {plain(steps(e.step))}, {_prose(e.sentence or e.words)}" for e in evidence))
    if verdict.advice:
        st.markdown(f"**Try:** {_prose(verdict.advice[0].text)}")
    with st.expander("Explain"):
        _explanation(verdict)
        _disagree(view, verdict)


def _prose(text: str) -> str:
    """Return a sentence for the page; no line breaks between a number and its per cent sign."""
    return plain(text, TEXT_LENGTH).replace(" %", "\N{NARROW NO-BREAK SPACE}%")


def _explanation(verdict: Verdict) -> None:
    condition = _conditions().get(verdict.condition)
    if condition is not None:
        st.markdown(f"{plain(condition.says, TEXT_LENGTH)} ({plain(condition.source)})")
    if verdict.evidence:
        st.dataframe(evidence_table(verdict), key=f"evidence-{verdict.condition}", hide_index=True)
    mind = would_change_its_mind(verdict)
    if mind:
        st.markdown(f"**What would change its mind:** {plain(mind, TEXT_LENGTH)}.")
    for advice in verdict.advice:
        st.markdown(f"**Try:** {plain(advice.text, TEXT_LENGTH)} ({plain(advice.source)})")
    if verdict.missing:
        st.caption(f"Would tell more: {plain('; '.join(verdict.missing), TEXT_LENGTH)}")


def _disagree(view: RunView, verdict: Verdict) -> None:
    """Let the reader say that the verdict is wrong: kept on this machine, for calibration; no run is written to."""
    with st.popover("Disagree", help="Your label is kept in a file of yours, beside no run, for calibration."):
        with st.form(f"disagree-{verdict.condition}", border=False):
            answer = st.radio("What is it really?", disagreements.LABELS, horizontal=True)
            note = st.text_input("Why?", max_chars=disagreements.MAX_NOTE)
            sent = st.form_submit_button("Keep this label")
        if sent:
            try:
                path = disagreements.keep(view.run.id, view.last_step, verdict, str(answer), note)
            except OSError as error:
                st.error(f"The label could not be kept: {plain(error)}")
            else:
                st.success(f"Kept in {plain(path)}.")


@cache
def _conditions() -> dict[str, Condition]:
    return {condition.id: condition for condition in conditions()}


def _picture(view: RunView, verdict: Verdict) -> None:
    """Draw the first evidence with the onset; a verdict without a chart says nothing more."""
    try:
        shown = picture(view, verdict)
    except Exception:
        _log.exception("the evidence of %r cannot be drawn", verdict.condition)
        return
    if shown is not None:
        _draw(shown, f"verdict-{verdict.condition}")


def _draw(shown: Picture, key: str) -> None:
    st.caption(f"**{plain(shown.title)}**")
    st.plotly_chart(shown.figure, key=key, config=CHART_CONFIG, alt=f"{clean(shown.title)} over steps")
    if shown.note:
        st.caption(plain(shown.note))
