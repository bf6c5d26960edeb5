"""The first cards of each question's page: what answers it best, in this order. The rest follows by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import plotly.graph_objects as go

from trainvitals.schema import Question, Scale
from trainvitals.views import charts, facts, spectrum_charts
from trainvitals.views.card import Card, together
from trainvitals.views.run_view import RunView
from trainvitals.views.words import number, steps

DENSITY, LARGEST = "hessian.density", "hessian.top"
GROWTH = "weights.norm.growth"
COLLAPSE = ("nc1", "nc2.norms_means", "nc2.angles_means", "nc3", "nc4")

Lead = Callable[[RunView], Iterator[Card | str]]  # a metric's name stands for its own card


def overfitting(view: RunView) -> Iterator[Card | str]:
    """Give the two losses with the turn of the held-out one, the gap, OUI by layer."""
    best = facts.best_heldout(view)
    marks = [(best[0], f"lowest: {number(best[1], 3)} at {steps(best[0])}")] if best else []
    yield together(
        "Train and held-out loss", "Mean loss on two fixed probe batches with the same weights.",
        "loss.heldout", "loss.train", marks=marks,
    )  # fmt: skip
    yield "overtraining"
    yield together("Accuracy", "Share of probe samples classified as labelled.", "accuracy.heldout", "accuracy.train")
    yield from ("gap.loss", "oui", "oui.layers")


def sharpness(view: RunView) -> Iterator[Card | str]:
    """Give λmax against its threshold, the top of the spectrum, its density, the trace."""
    of_batches = ("batch_sharpness",) if "batch_sharpness" in view.latest else ()  # what sits at 2/η under SGD
    yield together(
        "Sharpness and its threshold", "λmax of what the optimiser sees, and where a quadratic loss would diverge.",
        "stability.sharpness", "stability.threshold", *of_batches, scale=Scale.LOG,
    )  # fmt: skip
    yield from ("stability.ratio", "hessian.top", "hessian.trace", DENSITY)
    yield Card(
        "Spectrum, first and last",
        "The eigenvalue density at both ends of the chosen steps, the last with its error band; ticks: largest "
        "eigenvalues.", (DENSITY,), _first_and_last, over_steps=False,
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


def gradients(view: RunView) -> Iterator[Card | str]:
    """Give the alignment of the samples' gradients, noise, and of one step with the next."""
    yield from ("grad.cosine", "grad.coherence", "grad.noise_scale")
    yield together(
        "One step and the next", "Cosine of the gradients, and of the updates, of two steps in a row; −1 is bouncing.",
        "grad.successive.gradient", "grad.successive.update",
    )  # fmt: skip
    yield "grad.norm"


def stability(view: RunView) -> Iterator[Card | str]:
    """Give spikes of the loss, samples without a gradient, what is no number any more."""
    yield from ("spike", "first_bad", "softmax_collapse")


def representation(view: RunView) -> Iterator[Card | str]:
    """Give the four properties of neural collapse together, then one by one."""
    yield together(
        "Neural collapse", "All of them go to 0 as the features of a class collapse to its mean; logarithmic.",
        *COLLAPSE, wide=True, scale=Scale.LOG,
    )  # fmt: skip
    yield from ("nc1", "nc3")


def weights(view: RunView) -> Iterator[Card | str]:
    """Give norm growth by layer, distance, update ratio."""
    yield Card("Growth of weight norms", "Norm of each layer's weights over its norm at the start; pale is 1.",
               (GROWTH,), _growth, wide=True)  # fmt: skip
    yield from ("weights.norm.distance", "update.ratio", "weights.norm.value")


def _growth(view: RunView, revision: str) -> go.Figure:
    return charts.heatmap(view.measured(GROWTH), centre=1.0, span=view.span, revision=revision)


LEADS: dict[Question, Lead] = {
    Question.OVERFITTING: overfitting, Question.SHARPNESS: sharpness, Question.GRADIENTS: gradients,
    Question.STABILITY: stability, Question.REPRESENTATION: representation, Question.WEIGHTS: weights,
}  # fmt: skip
