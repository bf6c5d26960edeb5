"""The fields that say how all charts are drawn: smoothing, value axis, saved pictures. Kept in the address."""

from __future__ import annotations

import streamlit as st

from trainvitals.schema import Scale
from trainvitals.views.chart_style import ChartOptions

WIDTHS = {"off": 0.0, "1 %": 0.01, "3 %": 0.03, "10 %": 0.1, "30 %": 0.3}  # of the shown steps
AXES = ("as defined", "linear", "log")
PICTURES = ("png", "svg")


def chosen_options() -> ChartOptions:
    """Return what was chosen, the defaults for what the address does not know."""
    state = st.session_state
    axis = state.get("axis")
    picture = state.get("picture")
    return ChartOptions(
        WIDTHS.get(str(state.get("smooth")), 0.0),
        Scale(axis) if axis in AXES[1:] else None,
        picture if picture in PICTURES else PICTURES[0],
    )


def chart_options() -> None:
    """Show the fields, in the sidebar."""
    st.select_slider(
        "Smoothing", list(WIDTHS), key="smooth", bind="query-params",
        help="Width of an exponential mean, as a share of the shown steps. The measured line stays visible, pale.",
    )  # fmt: skip
    st.segmented_control("Value axis", AXES, default=AXES[0], required=True, key="axis", bind="query-params",
                         help="Of all line charts. On a logarithmic axis values of 0 and below are marked "
                              "at the edge.")  # fmt: skip
    st.segmented_control(
        "Save pictures as", PICTURES, default=PICTURES[0], required=True, format_func=str.upper, key="picture",
        bind="query-params", help="Of the camera button above a chart. The numbers are under “Data” below it.",
    )  # fmt: skip
