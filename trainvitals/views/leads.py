"""The first cards of each question's page: what answers it best, in this order. The rest follows by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import plotly.graph_objects as go

from trainvitals.schema import Question, ReferenceLine, Scale
from trainvitals.views import alignment, charts, class_charts, facts, growth, spectrum_charts
from trainvitals.views.card import Card, together
from trainvitals.views.run_view import RunView
from trainvitals.views.words import number, steps

DENSITY, LARGEST, SMALLEST = "hessian.density", "hessian.top", "hessian.bottom"
THRESHOLD = "stability.threshold"
OUI = "oui.layers"
CLASSES, GROUPS, PLANE = "grad.per_class.cosine", "grad.per_group.cosine", "nc.plane"
GROWTH = "weights.norm.growth"
COLLAPSE_SHORT = ("NC1", "NC2 norms", "NC2 angles", "NC3", "NC4")
COLLAPSE = ("nc1", "nc2.norms_means", "nc2.angles_means", "nc3", "nc4")

Lead = Callable[[RunView], Iterator[Card | str]]  # a metric's name stands for its own card


def overfitting(view: RunView) -> Iterator[Card | str]:
    """Give the two losses with the turn of the held-out one, the gap, OUI by layer."""
    best = facts.best_heldout(view)
    marks = [(best[0], f"lowest: {number(best[1], 3)} at {steps(best[0])}")] if best else []
    yield together(
        "Train and held-out loss", "Mean loss on two fixed probe batches with the same weights.",
        "loss.train", "loss.heldout", marks=marks,
    )  # fmt: skip
    yield "gap.loss"
    yield together("Accuracy", "Share of probe samples classified as labelled.", "accuracy.train", "accuracy.heldout")
    if _num_keys(view, OUI) <= charts.MAX_LINES:
        yield together("OUI per layer", "How differently the samples switch the units of a layer on and off. The band "
                       "is the published one, for reference: no verdict rests on it.", OUI,
                       references=_references(view, "oui"))  # fmt: skip
    else:
        yield OUI
    yield from ("oui", "overtraining")


def _num_keys(view: RunView, name: str) -> int:
    return len(view.latest[name][1].keys) if name in view.latest else 0


def _references(view: RunView, name: str) -> tuple[ReferenceLine, ...]:
    return view.descriptions[name].references if name in view.descriptions else ()


def sharpness(view: RunView) -> Iterator[Card | str]:
    """Give λmax against its threshold, the top of the spectrum, its density, the trace."""
    of_batches = ("batch_sharpness",) if "batch_sharpness" in view.latest else ()  # what sits at 2/η under SGD
    yield together(
        "Sharpness and its threshold", "λmax of what the optimiser sees, and where a quadratic loss would diverge.",
        "stability.sharpness", "stability.threshold", *of_batches, scale=Scale.LOG, height=charts.TALL,
    )  # fmt: skip
    yield Card(
        "Spectrum over the steps",
        "The density of the eigenvalues of the Hessian at each measured step; points: the largest and the smallest "
        "ones; dashed: the stability threshold.", (DENSITY,), _waterfall,
    )  # fmt: skip
    yield from ("hessian.top", "hessian.trace")
    yield Card(
        "Spectrum, first and last",
        "The eigenvalue density at both ends of the chosen steps, the last with its error band; ticks: largest "
        "eigenvalues.", (DENSITY,), _first_and_last, over_steps=False,
    )  # fmt: skip
    yield "stability.ratio"
    if "overlap.gradient" in view.latest:
        yield together(
            "Overlap with the sharpest directions",
            "How much of the gradient and of the weights lies in the top Hessian eigenvectors, against chance.",
            "overlap.gradient", "overlap.weights", "overlap.chance", scale=Scale.LOG,
        )  # fmt: skip


def _waterfall(view: RunView, revision: str) -> go.Figure:
    ends = [view.measured(name).points for name in (LARGEST, SMALLEST) if name in view.latest]
    threshold = view.measured(THRESHOLD).points if THRESHOLD in view.latest else None
    return spectrum_charts.spectrum_over_steps(
        view.descriptions[DENSITY], view.spectra(DENSITY), outliers=ends, threshold=threshold, span=view.span,
        revision=revision,
    )  # fmt: skip


def _first_and_last(view: RunView, revision: str) -> go.Figure:
    largest = view.measured(LARGEST).points if LARGEST in view.latest else None
    description, spectra = view.descriptions[DENSITY], view.spectra(DENSITY)
    return spectrum_charts.spectrum_now(description, spectra, largest=largest, revision=revision)


def gradients(view: RunView) -> Iterator[Card | str]:
    """Give the alignment of the samples' gradients, noise, and of one step with the next."""
    yield "grad.cosine"
    for name, what in ((CLASSES, "classes"), (GROUPS, "groups")):
        if has_matrix(view, name):
            yield Card(f"Do the {what} agree?", f"Cosine between the mean gradients of each two {what}: a step for the "
                       "one helps the other above 0 and hurts it below.", (name,), _matrix(name),
                       over_steps=False)  # fmt: skip
    yield from ("grad.coherence", "grad.noise_scale")
    yield together(
        "One step and the next", "Cosine of the gradients, and of the updates, of two steps in a row; −1 is bouncing.",
        "grad.successive.gradient", "grad.successive.update",
    )  # fmt: skip
    yield from ("grad.norm", CLASSES)


def has_matrix(view: RunView, name: str) -> bool:
    """Whether the last reading of a metric holds the cosines of all its pairs."""
    return name in view.latest and class_charts.cosines_of(view.latest[name][1]) is not None


def _matrix(name: str) -> Callable[[RunView, str], go.Figure]:
    def draw(view: RunView, revision: str) -> go.Figure:
        step, reading = view.latest[name]
        return class_charts.class_matrix(view.descriptions[name], reading, step, revision=revision)

    return draw


def stability(view: RunView) -> Iterator[Card | str]:
    """Give spikes of the loss, samples without a gradient, what is no number any more."""
    logged = alignment.first_known(alignment.LOSS_NAMES[1:], view.latest.__contains__)
    yield together("The train loss", "On the probe, the same samples each time; and as the training script logged it, "
                   "batch by batch.", "loss.train", *([logged] if logged else []))  # fmt: skip
    yield from ("spike", "learning_rate", "grad.spike.norm", "softmax_collapse", "first_bad")


def representation(view: RunView) -> Iterator[Card | str]:
    """Give the four properties of neural collapse together, then one by one."""
    yield together(
        "Neural collapse", "All of them go to 0 as the features of a class collapse to its mean; logarithmic.",
        *COLLAPSE, scale=Scale.LOG, short=dict(zip(COLLAPSE, COLLAPSE_SHORT, strict=True)), height=charts.TALL,
    )  # fmt: skip
    yield from (PLANE, "rank.effective", "units.dead")


def weights(view: RunView) -> Iterator[Card | str]:
    """Give norm growth by layer, distance, update ratio."""
    yield Card("Growth of weight norms", "Norm of each layer's weights over its norm at the start; pale is 1. "
               f"▲: out of proportion to the other layers now (robust z above {growth.OUTLIER_Z}).", (GROWTH,), _growth,
               wide=True)  # fmt: skip
    yield from ("weights.norm.distance", "update.ratio", "weights.norm.value")


def _growth(view: RunView, revision: str) -> go.Figure:
    outliers = growth.outlier_layers(facts.growth_now(view))
    return charts.heatmap(view.measured(GROWTH), centre=1.0, marked=outliers, span=view.span, revision=revision)


LEADS: dict[Question, Lead] = {
    Question.OVERFITTING: overfitting, Question.SHARPNESS: sharpness, Question.GRADIENTS: gradients,
    Question.STABILITY: stability, Question.REPRESENTATION: representation, Question.WEIGHTS: weights,
}  # fmt: skip
