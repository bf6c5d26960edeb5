"""Which classes' means, and which of the classifier's rows, lie close together: cosines, by class size.

Under imbalance the rows of small classes can merge (cosine towards 1) while those of large classes keep the angles of
a simplex, −1/(C−1): a mean over all pairs, as in `nc2`, does not show it.

Legend: C classes, D features, M the centred class means (C, D), W the classifier's weight (C, D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, Needs, Part, Tier, or_missing
from trainvitals.diagnostics.feature_layers import FeatureDiagnostic, FeatureView
from trainvitals.diagnostics.neural_collapse import classifier_weight, statistics
from trainvitals.schema import Chart, Question, Reading

_MAX_PAIRS = 2016  # of 64 classes: cosines kept in the details


def cosines(rows: Tensor) -> Tensor:
    """Return the cosines (C, C) of rows (C, D), in float64, with NaN on the diagonal.

    Raises:
        Missing: if a row is zero or there is one row only.
    """
    norms = rows.double().norm(dim=1, keepdim=True)
    if len(rows) < 2:
        raise Missing("only one class: no pair has an angle")
    if float(norms.min()) == 0:
        raise Missing("a class's vector is zero, so it has no direction")
    unit = rows.double() / norms
    return (unit @ unit.T).fill_diagonal_(torch.nan)


def by_size(counts: Tensor) -> Tensor:
    """Return the classes with the largest first, (C,); equal ones in their own order.

    >>> by_size(torch.tensor([3, 9, 3])).tolist()
    [1, 0, 2]
    """
    return counts.sort(descending=True, stable=True).indices


def _counts(view: FeatureView) -> Tensor:
    labels, num_classes = view.labels()
    return torch.bincount(labels, minlength=num_classes)


def _reading(view: FeatureView, rows: Tensor, *, largest: bool) -> Reading:
    counts = _counts(view)
    order = by_size(counts)
    matrix = cosines(rows)[order][:, order]
    values = matrix.nan_to_num(nan=-torch.inf).amax(1) if largest else matrix.nanmean(1)
    upper = matrix[tuple(torch.triu_indices(len(matrix), len(matrix), 1, device=matrix.device))]
    details = {"num_samples": counts[order].double()}
    if len(upper) <= _MAX_PAIRS:
        details["cosines"] = upper
    return Reading(value=values, keys=tuple(str(c) for c in order.tolist()), details=details)


@dataclass
class ClassCosines(FeatureDiagnostic):
    """Cosine of each class's centred mean, and of its row of the classifier, with those of the other classes.

    Each part is (C,), exact on the probe, classes with most samples in the probe first: the mean over the other
    classes, and the largest one, that of the nearest. At the simplex both are −1/(C−1). Details: `num_samples` of
    the classes, and up to 64 classes `cosines`, the upper triangle of the matrix row by row in the same order.

    Args:
        layers: names or patterns of layers to measure in place of the last one (see `feature_layers`).
    """

    name = "nc.cosines"
    title = "Cosines between classes"
    question = Question.REPRESENTATION
    summary = "Which classes lie close together in the features, and which in the classifier; largest classes first."
    formula = r"\cos(\mu_c - \mu_G, \mu_{c'} - \mu_G),\ \cos(w_c, w_{c'})"
    unit = "cosine"
    undefined = (
        "Fewer than 2 classes, a class absent from the probe batch (for means), no classifier (C, D) for rows, or a "
        "vector that is zero."
    )
    source = (
        "Liu et al. 2023, Inducing Neural Collapse in Deep Long-tailed Learning; Dang et al. 2023, Neural Collapse in "
        "Deep Linear Networks: From Balanced to Imbalanced Data"
    )
    needs = Needs.FEATURES | Needs.OUTPUTS
    tier = Tier.FULL
    interval = 100
    group = "nc"
    chart = Chart.HEATMAP
    keys = "class"
    parts = {
        "means": Part(
            "Mean cosine of class means", "How close each class's mean lies to those of the others, on average.",
            formula=r"\operatorname*{mean}_{c' \ne c} \cos(\mu_c - \mu_G, \mu_{c'} - \mu_G)",
        ),
        "means_largest": Part(
            "Largest cosine of class means", "How close each class's mean lies to the nearest other one.",
            formula=r"\max_{c' \ne c} \cos(\mu_c - \mu_G, \mu_{c'} - \mu_G)",
        ),
        "weights": Part(
            "Mean cosine of classifier rows", "How close each class's row of the classifier lies to the others.",
            formula=r"\operatorname*{mean}_{c' \ne c} \cos(w_c, w_{c'})",
        ),
        "weights_largest": Part(
            "Largest cosine of classifier rows", "Which classes' rows of the classifier merge with another one.",
            formula=r"\max_{c' \ne c} \cos(w_c, w_{c'})",
        ),
    }  # fmt: skip

    def of(self, view: FeatureView) -> Mapping[str, Reading]:
        """Return the mean and the largest cosines of means and of rows."""
        return {
            "means": or_missing(lambda: _reading(view, _means(view), largest=False)),
            "means_largest": or_missing(lambda: _reading(view, _means(view), largest=True)),
            "weights": or_missing(lambda: _reading(view, _weights(view), largest=False)),
            "weights_largest": or_missing(lambda: _reading(view, _weights(view), largest=True)),
        }


def _means(view: FeatureView) -> Tensor:
    return view.once(statistics).centred_means


def _weights(view: FeatureView) -> Tensor:
    return classifier_weight(view, (view.labels()[1], view.features.shape[-1]))
