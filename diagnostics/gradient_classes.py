"""Do the gradients of one class agree among themselves, and with those of the other classes.

Legend: N samples, C classes, P trainable parameters, g_c the mean of the gradients of class c's samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.gradient_alignment import class_cosines, finite_sums
from trainvitals.diagnostics.gradient_sums import GradientSums
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale

_MAX_PAIRS = 2016  # of 64 classes
_UNRELATED = ReferenceLine("unrelated", 0.0, "cosine of independent directions in many dimensions; by the definition")


@dataclass
class GradientStiffness(Diagnostic):
    """Mean cosine between gradients of two samples of one class, and of two classes.

    Values in [−1, 1], exact on the probe batch, without forming a pair. Pairs count alike, whatever their class.
    Samples with a gradient of zero are left out. Within above between says that a step on a sample helps its
    class first; between below 0 that classes pull against each other. No options.

    Source: Fort, Nowak, Jastrzebski, Narayanan 2019 (cosine stiffness within and between classes).
    """

    name: ClassVar = "grad.stiffness"
    title: ClassVar = "Stiffness within and between classes"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "Whether a step that helps one sample helps its own class, and the others."
    formula: ClassVar = r"\operatorname*{mean}_{i<j}\ \cos(g_i, g_j)"
    undefined: ClassVar = (
        "No class labels, sums per class that do not fit into memory, or a gradient with NaN or Inf. Within: no class "
        "has two samples. Between: only one class."
    )
    source: ClassVar = "Fort, Nowak, Jastrzebski, Narayanan 2019, Stiffness: A new perspective on generalization"
    needs: ClassVar = Needs.PER_SAMPLE_GRADIENTS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 100
    references: ClassVar = (_UNRELATED,)
    parts: ClassVar = {
        "within": Part(
            "Stiffness within classes", "Mean cosine between the gradients of two samples of the same class.",
            formula=r"\operatorname*{mean}_{i<j,\ y_i = y_j}\ \cos(g_i, g_j)",
        ),
        "between": Part(
            "Stiffness between classes", "Mean cosine between the gradients of two samples of different classes.",
            formula=r"\operatorname*{mean}_{i<j,\ y_i \ne y_j}\ \cos(g_i, g_j)",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return both mean cosines."""
        found = class_cosines(finite_sums(snapshot))
        if "without_classes" in found:
            raise Missing(str(found["without_classes"]))
        reasons = {
            "within": "no class has two samples with a gradient that is not zero",
            "between": "fewer than two classes have a sample with a gradient that is not zero",
        }
        return {
            part: Reading(found[key]) if (key := f"{part}_classes") in found else Reading.absent(why)
            for part, why in reasons.items()
        }


@dataclass
class GradientPerClass(Diagnostic):
    """How large the mean gradient of each class is, and how it lies to those of the other classes.

    `norm`: ‖g_c‖, g_c the mean over the class's samples of the probe, so that class sizes do not enter.
    `cosine`: mean cosine of g_c with the other classes' mean gradients; `min_cosine`: the smallest of them. Each
    (C',), exact, over the classes present, by class number; `details["cosines"]` is the (C', C') matrix, and of up to
    64 classes `details["pairs"]` of `cosine` its upper triangle row by row, which a run keeps. A class whose mean
    gradient is zero has a norm but no cosine (`details["left_out"]`); absent classes stand in `details["absent"]`. The
    mean gradients of balanced classes cancel near a minimum: their cosines are then about
    −1/(C − 1). No options.

    Source: Francazi, Baity-Jesi, Lucchi 2023 (gradients of classes under imbalance: norms and angles).
    """

    name: ClassVar = "grad.per_class"
    title: ClassVar = "Mean gradients of the classes"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "How strongly each class pulls, and whether the classes pull against each other."
    formula: ClassVar = r"\lVert g_c\rVert,\ \cos(g_c, g_{c'}),\ g_c = \operatorname*{mean}_{y_i = c} g_i"
    undefined: ClassVar = (
        "No class labels, sums per class that do not fit into memory, or a gradient with NaN or Inf. Cosines: fewer "
        "than two classes have a mean gradient that is not zero."
    )
    source: ClassVar = (
        "Francazi, Baity-Jesi, Lucchi 2023, A Theoretical Analysis of the Learning Dynamics under Class Imbalance"
    )
    needs: ClassVar = Needs.PER_SAMPLE_GRADIENTS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 100
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "class"
    parts: ClassVar = {
        "norm": Part(
            "Gradient norm of each class", "How strongly the mean gradient of each class pulls.",
            unit="loss per unit of weight", formula=r"\lVert g_c\rVert", scale=Scale.LOG,
        ),
        "cosine": Part(
            "Mean cosine of each class's gradient with the others'",
            "Whether a step for this class helps the others (above 0) or hurts them (below 0), on average.",
            formula=r"\operatorname*{mean}_{c' \ne c}\ \cos(g_c, g_{c'})", references=(_UNRELATED,),
        ),
        "min_cosine": Part(
            "Smallest cosine of each class's gradient with another's",
            "How strongly this class pulls against the class that it conflicts with most.",
            formula=r"\min_{c' \ne c}\ \cos(g_c, g_{c'})", references=(_UNRELATED,),
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return norms and cosines by class."""
        sums = finite_sums(snapshot)
        present, means = class_means(sums)
        absent = [str(c) for c in range(sums.num_classes or 0) if c not in present]
        norms = torch.linalg.vector_norm(means, dim=1).cpu()  # (C',)
        names = [str(c) for c in present]
        details = {"absent": absent} if absent else {}
        return {
            "norm": Reading(norms, keys=tuple(names), details=details),
            "cosine": or_missing(lambda: with_pairs(_cosines(means, norms, names, details, torch.mean))),
            "min_cosine": or_missing(lambda: _cosines(means, norms, names, details, torch.amin)),
        }


def class_means(sums: GradientSums) -> tuple[list[int], Tensor]:
    """Return the classes present and the mean gradients of their samples, (C', P).

    Raises:
        Missing: if the samples have no labels, or sums per class were not kept.
    """
    if sums.class_sums is None or sums.class_sizes is None:
        raise Missing(sums.without_class_sums or "")
    present = torch.nonzero(sums.class_sizes).flatten()
    return present.tolist(), sums.class_sums[present] / sums.class_sizes[present, None]


def with_pairs(reading: Reading) -> Reading:
    """Return the reading with `pairs` among its details: the upper triangle of `cosines`, row by row.

    Of more than 64 classes or groups it stays as it is. A store keeps NumPy arrays of one dimension.
    """
    cosines = reading.details["cosines"]
    rows, columns = torch.triu_indices(len(cosines), len(cosines), offset=1)
    if len(rows) > _MAX_PAIRS:
        return reading
    return replace(reading, details={**reading.details, "pairs": cosines[rows, columns].numpy()})


def _cosines(
    means: Tensor, norms: Tensor, names: list[str], details: Mapping[str, object], over: Callable[..., Tensor]
) -> Reading:
    """Return one number a class, `over` its cosines with the other classes."""
    kept = torch.nonzero(norms > 0).flatten()
    if len(kept) < 2:
        raise Missing(f"{len(kept)} classes have a mean gradient that is not zero, a cosine needs two")
    units = means[kept.to(means.device)] / norms[kept].to(means.device)[:, None]
    cosines = (units @ units.T).clamp(-1, 1).cpu()  # (C'', C'')
    others = ~torch.eye(len(kept), dtype=torch.bool)
    value = torch.stack([over(row[other]) for row, other in zip(cosines, others, strict=True)])
    left_out = {names[i]: "its mean gradient is zero" for i in range(len(names)) if not norms[i] > 0}
    return Reading(
        value, keys=tuple(names[i] for i in kept.tolist()),
        details={**details, "cosines": cosines, **({"left_out": left_out} if left_out else {})},
    )  # fmt: skip
