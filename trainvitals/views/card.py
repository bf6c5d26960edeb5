"""What a card shows: the metrics that it is about, and the figure that is drawn of them. It needs no Streamlit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from trainvitals.schema import Chart, Description
from trainvitals.views import charts, class_charts, landscape_charts, spectrum_charts
from trainvitals.views.run_view import RunView


@dataclass(frozen=True)
class Card:
    """What one card shows: the metrics that it is about, and how they are drawn together."""

    title: str
    summary: str
    names: tuple[str, ...]
    draw: Callable[[RunView, str], go.Figure]  # of the run and the revision that keeps the zoom
    wide: bool = False  # over both columns
    needs_all: bool = False  # drawn only when every metric is there; one is enough by default
    over_steps: bool = True  # whether its horizontal axis is that of steps, where onsets are marked

    def is_recorded(self, view: RunView) -> bool:
        """Whether the run holds what the card draws."""
        return (all if self.needs_all else any)(name in view.latest for name in self.names)


def card(description: Description) -> Card:
    """Return the card of any metric, from its description alone."""

    def draw(view: RunView, revision: str) -> go.Figure:
        if description.chart == Chart.WATERFALL:
            spectra = view.spectra(description.name)
            return spectrum_charts.spectrum_over_steps(description, spectra, span=view.span, revision=revision)
        if description.chart == Chart.LANDSCAPE:
            directions = view.latest[description.name][1].details.get("directions", "")
            table = view.landscapes(description.name)
            return landscape_charts.landscape(description, table, directions=str(directions), revision=revision)
        if description.chart == Chart.PLANE:
            step, reading = view.latest[description.name]
            return class_charts.class_plane(description, reading, step, revision=revision)
        measured = view.measured(description.name)
        return charts.draw(measured, span=view.span, revision=revision, options=view.options)

    over_steps = description.chart not in (Chart.PLANE, Chart.LANDSCAPE)
    return Card(description.title, description.summary, (description.name,), draw, over_steps=over_steps)


def together(title: str, summary: str, *names: str, wide: bool = False, **options) -> Card:
    """Return a card with several metrics on one axis; `options` go to `charts.lines`."""

    def draw(view: RunView, revision: str) -> go.Figure:
        parts = [view.measured(name) for name in names if name in view.latest]
        return charts.lines(parts, span=view.span, revision=revision, options=view.options, **options)

    return Card(title, summary, names, draw, wide)
