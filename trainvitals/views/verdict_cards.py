"""The verdicts of a run: what is found with its evidence, what is healthy, what could not be judged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from trainvitals.schema import Evidence, ReferenceLine, Verdict, VerdictState
from trainvitals.verdicts.condition import Condition, conditions
from trainvitals.views import charts, disagreements
from trainvitals.views.cards import CHART_CONFIG
from trainvitals.views.measured import Measured
from trainvitals.views.run_view import RunView
from trainvitals.views.verdict_words import (
    FOUND,
    evidence_table,
    headline,
    timing,
    unknown_table,
    would_change_its_mind,
)
from trainvitals.views.words import clean, plain

COLOURS: Mapping[VerdictState, Literal["red", "orange"]] = {VerdictState.ALARM: "red", VerdictState.WATCH: "orange"}
CHART_HEIGHT = 190  # pixels: two verdicts and the headline fit on 720
TEXT_LENGTH = 900  # characters of one summary
_log = logging.getLogger(__name__)


def verdict_list(view: RunView) -> None:
    """Show the answer, a card for all that is found, and a line for the rest."""
    verdicts = view.verdicts
    st.markdown(f"**{plain(headline(verdicts), TEXT_LENGTH)}**")
    for verdict in verdicts:
        if verdict.state in FOUND:
            _show(view, verdict)
    healthy = [v.title for v in verdicts if v.state == VerdictState.HEALTHY]
    if healthy:
        st.caption(f":green[✓] Healthy: {plain(', '.join(healthy), TEXT_LENGTH)}.")
    unknown = unknown_table(verdicts)
    if len(unknown):
        with st.expander(f"Not measured well enough to tell: {len(unknown)} conditions"):
            st.dataframe(unknown, key="unknown-conditions", hide_index=True)


def _show(view: RunView, verdict: Verdict) -> None:
    with st.container(border=True, gap="xsmall"):
        text, picture = st.columns([3, 2], gap="small")
        with text:
            _words(view, verdict)
        with picture:
            _picture(view, verdict)


def _words(view: RunView, verdict: Verdict) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if verdict.is_informational:
            st.badge("to know", color="blue")
        else:
            st.badge(str(verdict.state), color=COLOURS[verdict.state])
        st.markdown(f"**{plain(verdict.title)}**")
        st.caption(plain(timing(verdict)))
    st.markdown(plain(verdict.summary, TEXT_LENGTH))
    if verdict.advice:
        st.markdown(f"**Try:** {plain(verdict.advice[0].text, TEXT_LENGTH)}")
    with st.expander("Explain"):
        _explanation(verdict)
        _disagree(view, verdict)


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
            label = st.radio("What is it really?", disagreements.LABELS, horizontal=True)
            note = st.text_input("Why?", max_chars=disagreements.MAX_NOTE)
            sent = st.form_submit_button("Keep this label")
        if sent:
            try:
                path = disagreements.keep(view.run.id, view.last_step, verdict, str(label), note)
            except OSError as error:
                st.error(f"The label could not be kept: {plain(error)}")
            else:
                st.success(f"Kept in {plain(path)}.")


@cache
def _conditions() -> dict[str, Condition]:
    return {condition.id: condition for condition in conditions()}


def _picture(view: RunView, verdict: Verdict) -> None:
    """Draw the leading evidence with the onset; a verdict without a chart says nothing more."""
    drawable = [e for e in verdict.evidence if e.metric in view.latest and not view.points(e.metric).empty]
    if not drawable:
        return
    found = next((e for e in drawable if e.key or len(view.measured(e.metric).keys()) <= charts.MAX_LINES), drawable[0])
    try:
        figure = evidence_figure(view, verdict, found)
    except Exception:
        _log.exception("the evidence of %r cannot be drawn", verdict.condition)
        return
    st.plotly_chart(figure, key=f"verdict-{verdict.condition}", config=CHART_CONFIG,
                    alt=f"{clean(found.metric)} over steps")  # fmt: skip


def evidence_figure(view: RunView, verdict: Verdict, evidence: Evidence) -> go.Figure:
    """Return the chart of one piece of evidence: its metric, or one key of it, the level, and the onset."""
    names = [evidence.metric]
    if evidence.metric == "loss.heldout" and "loss.train" in view.latest:
        names.insert(0, "loss.train")  # one without the other says little
    parts = [_one_key(view.measured(name), evidence.key) for name in names]
    marks = [] if verdict.since is None else [(verdict.since, "since")]
    levels = _levels(parts[-1], evidence)
    if len(parts) == 1 and len(parts[0].keys()) > charts.MAX_LINES:  # a number for every sample
        figure = charts.heatmap(parts[0], span=view.span, revision=verdict.condition)
    else:
        figure = charts.lines(parts, references=levels, marks=marks, span=view.span, revision=verdict.condition)
    return figure.update_layout(height=CHART_HEIGHT)


def _one_key(measured: Measured, key: str) -> Measured:
    rows = measured.points.loc[measured.points["key"] == key] if key else measured.points
    return Measured(measured.description, rows if len(rows) else measured.points, measured.missing)


def _levels(measured: Measured, evidence: Evidence) -> Sequence[ReferenceLine]:
    """Return the level as a line, if what is held against it is the metric itself and nothing made from it."""
    then = measured.points.loc[measured.points["step"] == evidence.step, "value"].to_numpy(float)
    if not np.isclose(then, evidence.value, rtol=1e-6).any():
        return ()
    return (ReferenceLine("level", evidence.threshold, evidence.source),)
