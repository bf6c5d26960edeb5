"""Is it stable? Spikes of the loss, samples without a gradient, what is no number any more."""

from collections.abc import Iterator

from trainvitals.schema import Question
from trainvitals.views import facts
from trainvitals.views.cards import Card
from trainvitals.views.page import show_question
from trainvitals.views.run_view import RunView


def lead(view: RunView) -> Iterator[Card | str]:
    """Give the first cards of the page."""
    yield from ("spike", "first_bad", "softmax_collapse")


show_question(Question.STABILITY, facts.stability, lead)
