"""Which weights grow? Norm growth by layer, the layers out of proportion, distance, update ratio."""

from collections.abc import Iterator

import plotly.graph_objects as go

from trainvitals.schema import Question
from trainvitals.views import charts, facts
from trainvitals.views.cards import Card
from trainvitals.views.page import show_question
from trainvitals.views.run_view import RunView

GROWTH = "weights.norm.growth"


def lead(view: RunView) -> Iterator[Card | str]:
    """Give the first cards of the page."""
    yield Card("Growth of weight norms", "Norm of each layer's weights over its norm at the start; pale is 1.",
               (GROWTH,), _growth, wide=True)  # fmt: skip
    yield from ("weights.norm.distance", "update.ratio", "weights.norm.value")


def _growth(view: RunView, revision: str) -> go.Figure:
    return charts.heatmap(view.measured(GROWTH), centre=1.0, span=view.span, revision=revision)


show_question(Question.WEIGHTS, facts.weights, lead)
