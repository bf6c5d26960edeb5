"""How all charts are drawn: smoothing, the value axis, the kind of picture that is saved. Kept in the address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from trainvitals.schema import Scale

WIDTHS = {"off": 0.0, "1 %": 0.01, "3 %": 0.03, "10 %": 0.1, "30 %": 0.3}  # of the shown steps
AXES = ("as defined", "linear", "log")
PICTURES = ("png", "svg")


@dataclass(frozen=True)
class ChartOptions:
    """What the reader chose for all charts."""

    smoothing: float = 0.0  # width of the mean as a share of the shown steps; 0: none
    scale: Scale | None = None  # of the value axis; None: as each metric defines it
    picture: str = "png"

    def config(self, name: str) -> dict[str, Any]:
        """Return plotly's settings of one chart; its camera button saves `name`.png or .svg."""
        saved = {"format": self.picture, "filename": name, "scale": 1 if self.picture == "svg" else 2}
        return {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"], "toImageButtonOptions": saved}


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
