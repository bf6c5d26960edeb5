"""Which samples? The ones that matter most, with what they look like, and how their numbers went."""

from typing import Any

import pandas as pd
import streamlit as st

from trainvitals.schema import Question
from trainvitals.views.card import card
from trainvitals.views.cards import definitions, grid
from trainvitals.views.page import show_page, status_line
from trainvitals.views.page_verdicts import verdict_lines
from trainvitals.views.run_view import RunView
from trainvitals.views.sample_tables import (
    INPUTS,
    MEMORISED,
    PREDICTED,
    RANKINGS,
    USED,
    Ranking,
    are_pictures,
    ranked,
)
from trainvitals.views.words import plain

HIDDEN = (INPUTS, PREDICTED, MEMORISED)  # their numbers are in the tables; a chart of them says nothing more
ROW_HEIGHT = 40  # pixels: eight samples of two tables fit on 720
WIDTH = 60  # pixels: six columns of half a page


def body(view: RunView) -> None:
    """Show a table for each ranking that the run has numbers for, then the charts."""
    status_line(view)
    verdict_lines(view, Question.SAMPLES)
    tables = [(ranking, rows) for ranking in RANKINGS if not (rows := ranked(view, ranking)).empty]
    if not tables:
        st.info("No number was recorded for single samples in this run. To record them, name \"samples\" in "
                '`tv.watch(..., probes=[...])`, or take `probes="full"`.')  # fmt: skip
    else:
        st.caption("Samples are numbered by their place in the train probe, from 0.")
    pictures = are_pictures(view)
    for pair in (tables[i : i + 2] for i in range(0, len(tables), 2)):
        for column, (ranking, rows) in zip(st.columns(2, gap="small"), pair, strict=False):
            with column:
                _table(ranking, rows, pictures)
    grid(view, [card(d) for d in view.metrics(Question.SAMPLES) if d.name not in HIDDEN])
    definitions(view, [name for name in USED if name in view.descriptions and name in HIDDEN])


def _table(ranking: Ranking, rows: pd.DataFrame, pictures: bool) -> None:
    with st.container(border=True, gap="xsmall", height="stretch"):
        st.markdown(f"**{plain(ranking.title)}**")
        st.caption(plain(ranking.summary))
        st.dataframe(
            rows, hide_index=True, key=f"samples-{ranking.name}", column_config=_columns(rows, pictures),
            row_height=ROW_HEIGHT if pictures else None, width="stretch", height="content",
        )  # fmt: skip


def _columns(rows: pd.DataFrame, pictures: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"Sample": st.column_config.NumberColumn(format="%d", width=WIDTH, pinned=True)}
    if pictures:
        config["Input"] = st.column_config.ImageColumn(width=WIDTH)
    for name in ("Label", "Predicted", "Forgotten"):
        config[name] = st.column_config.NumberColumn(format="%d", width=WIDTH)
    for name in ("Loss", "EL2N", "Gradient norm", "Mean margin"):
        config[name] = st.column_config.NumberColumn(format="%.3g", width=WIDTH)
    return {name: column for name, column in config.items() if name in rows.columns}


show_page(Question.SAMPLES, body)
