"""Is it overfitting? The two losses with the turn of the held-out one, the gap, OUI by layer."""

from collections.abc import Iterator

from trainvitals.schema import Question
from trainvitals.views import facts
from trainvitals.views.cards import Card, together
from trainvitals.views.page import show_question
from trainvitals.views.run_view import RunView
from trainvitals.views.words import number, steps


def lead(view: RunView) -> Iterator[Card | str]:
    """Give the first cards of the page."""
    best = facts.best_heldout(view)
    marks = [(best[0], f"lowest: {number(best[1], 3)} at {steps(best[0])}")] if best else []
    yield together(
        "Train and held-out loss", "Mean loss on two fixed probe batches with the same weights.",
        "loss.heldout", "loss.train", marks=marks,
    )  # fmt: skip
    yield "overtraining"
    yield together("Accuracy", "Share of probe samples classified as labelled.", "accuracy.heldout", "accuracy.train")
    yield from ("gap.loss", "oui", "oui.layers")


show_question(Question.OVERFITTING, facts.overfitting, lead)
