"""How sharp is it? λmax against its threshold, the top of the spectrum, its density, the trace."""

from collections.abc import Iterator

import plotly.graph_objects as go

from trainvitals.schema import Question, Scale
from trainvitals.views import facts, spectrum_charts
from trainvitals.views.cards import Card, together
from trainvitals.views.page import show_question
from trainvitals.views.run_view import RunView

DENSITY, LARGEST = "hessian.density", "hessian.top"


def lead(view: RunView) -> Iterator[Card | str]:
    """Give the first cards of the page."""
    of_batches = ("batch_sharpness",) if "batch_sharpness" in view.latest else ()  # what sits at 2/η under SGD
    yield together(
        "Sharpness and its threshold", "λmax of what the optimiser sees, and where a quadratic loss would diverge.",
        "stability.sharpness", "stability.threshold", *of_batches, scale=Scale.LOG,
    )  # fmt: skip
    yield from ("stability.ratio", "hessian.top", "hessian.trace", DENSITY)
    yield Card(
        "Spectrum, first and last",
        "The eigenvalue density at both ends of the chosen steps, the last with its error band; ticks: largest "
        "eigenvalues.", (DENSITY,), _first_and_last,
    )  # fmt: skip


    if "overlap.gradient" in view.latest:
        yield together(
            "Overlap with the sharpest directions",
            "How much of the gradient and of the weights lies in the top Hessian eigenvectors, against chance.",
            "overlap.gradient", "overlap.weights", "overlap.chance", scale=Scale.LOG,
        )  # fmt: skip


def _first_and_last(view: RunView, revision: str) -> go.Figure:
    largest = view.measured(LARGEST).points if LARGEST in view.latest else None
    description, spectra = view.descriptions[DENSITY], view.spectra(DENSITY)
    return spectrum_charts.spectrum_now(description, spectra, largest=largest, revision=revision)


show_question(Question.SHARPNESS, facts.sharpness, lead)
