"""Do the gradients agree? Alignment of the samples' gradients, noise, and of one step with the next."""

from collections.abc import Iterator

from trainvitals.schema import Question
from trainvitals.views import facts
from trainvitals.views.cards import Card, together
from trainvitals.views.page import show_question
from trainvitals.views.run_view import RunView


def lead(view: RunView) -> Iterator[Card | str]:
    """Give the first cards of the page."""
    yield from ("grad.cosine", "grad.coherence", "grad.noise_scale")
    yield together(
        "One step and the next", "Cosine of the gradients, and of the updates, of two steps in a row; −1 is bouncing.",
        "grad.successive.gradient", "grad.successive.update",
    )  # fmt: skip
    yield "grad.norm"


show_question(Question.GRADIENTS, facts.gradients, lead)
