"""What has it learned? The four properties of neural collapse together, then one by one."""

from collections.abc import Iterator

from trainvitals.schema import Question, Scale
from trainvitals.views import facts
from trainvitals.views.cards import Card, together
from trainvitals.views.page import show_question
from trainvitals.views.run_view import RunView

TOGETHER = ("nc1", "nc2.norms_means", "nc2.angles_means", "nc3", "nc4")


def lead(view: RunView) -> Iterator[Card | str]:
    """Give the first cards of the page."""
    yield together(
        "Neural collapse", "All of them go to 0 as the features of a class collapse to its mean; logarithmic.",
        *TOGETHER, wide=True, scale=Scale.LOG,
    )  # fmt: skip
    yield from ("nc1", "nc3")


show_question(Question.REPRESENTATION, facts.representation, lead)
