"""Do named groups of samples (domains, tasks) pull the weights the same way.

Legend: N samples, K groups, P trainable parameters, g_k gradient of the mean loss of group k's samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.batch_loss import mean_gradient
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.diagnostics.gradient_classes import with_pairs
from trainvitals.diagnostics.sample_groups import Groups, check_groups, sample_groups
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale

Over = Callable[[Tensor], Tensor]

MAX_BYTES = 2**30  # that the groups' gradients may take together
_COLUMNS = 2**20  # parameters widened to float64 at a time
_UNRELATED = ReferenceLine("unrelated", 0.0, "cosine of independent directions in many dimensions; by the definition")


def gram_of(gradients: Sequence[Tensor]) -> Tensor:
    """Return the inner products (K, K) of K gradients (P,), added up in float64.

    >>> gram_of([torch.tensor([3.0, 4.0]), torch.tensor([4.0, -3.0])]).tolist()
    [[25.0, 0.0], [0.0, 25.0]]
    """
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for start in range(0, len(gradients[0]), _COLUMNS):
        rows = torch.stack([g[start : start + _COLUMNS].double() for g in gradients])
        gram += (rows @ rows.T).cpu()
    return gram


def pairwise_cosines(gram: Tensor) -> Tensor:
    """Return the cosines (K, K) of vectors that are not zero, from their inner products."""
    lengths = gram.diagonal().sqrt()
    return (gram / lengths[:, None] / lengths[None, :]).clamp(-1, 1)


def group_gradients(snapshot: Snapshot, index: Tensor, num_groups: int) -> list[Tensor]:
    """Return g_k, (P,) each, of the groups that samples belong to by `index` (N,).

    Raises:
        Missing: if they do not fit into memory together, the probe cannot be cut, or one is not finite.
    """
    values = list(snapshot.parameters.values())
    needed = num_groups * sum(v.numel() * v.element_size() for v in values)
    if needed > MAX_BYTES:
        raise Missing(
            f"the gradients of {num_groups} groups would take {needed / 2**20:.0f} MiB, more than "
            f"{MAX_BYTES / 2**20:.0f} MiB"
        )
    found = []
    for group in range(num_groups):
        rows = (index == group).nonzero().flatten().tolist()
        parts = mean_gradient(snapshot.losses_of(rows), values)
        found.append(torch.cat([part.reshape(-1) for part in parts]))
        if not found[-1].isfinite().all():
            raise Missing("the gradient of a group holds NaN or Inf")
    return found


@dataclass
class GradientPerGroup(Diagnostic):
    """How large the gradient of each named group of samples is, and how it lies to those of the other groups.

    `norm`: ‖g_k‖, g_k the gradient of the mean loss over the group's samples of the train probe, so that group sizes
    do not enter. `cosine`: mean cosine of g_k with the other groups' gradients; `min_cosine`: the smallest of them.
    Each (K,), exact, with the groups as keys; `details["cosines"]` is the (K, K) matrix. `conflicts`: the share of
    pairs of groups with a cosine below 0, a step for one raises the loss of the other to first order. A group whose
    gradient is zero has a norm but no cosine (`details["left_out"]`). Give the train probe as tensors, so that
    places in it are known.

    Args:
        groups: a whole number or a name for each sample of the train probe, as a list or a tensor (N,).
    """

    name: ClassVar = "grad.per_group"
    title: ClassVar = "Gradients of the groups"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "How strongly each group of samples pulls, and whether groups pull against each other."
    formula: ClassVar = r"\lVert g_k\rVert,\ \cos(g_k, g_{k'}),\ g_k = \nabla \operatorname*{mean}_{i \in k} \ell_i"
    undefined: ClassVar = (
        "No groups were given (option groups), or not one for each sample of the train probe; gradients that do not "
        "fit into memory together or hold NaN or Inf; batches that cannot be joined and cut. Cosines and conflicts: "
        "fewer than two groups have a gradient that is not zero."
    )
    source: ClassVar = (
        "Yu et al. 2020, Gradient Surgery for Multi-Task Learning, definition 1 (conflicting gradients); Shi et al. "
        "2022, Gradient Matching for Domain Generalization, section 3 (inner products between domains)"
    )
    needs: ClassVar = Needs.OUTPUTS | Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    is_slow: ClassVar = True
    interval: ClassVar = 100
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "group"
    passes: ClassVar = "a forward and a backward pass over the train probe, in groups"
    parts: ClassVar = {
        "norm": Part(
            "Gradient norm of each group", "How strongly the gradient of each group pulls.",
            unit="loss per unit of weight", formula=r"\lVert g_k\rVert", scale=Scale.LOG,
        ),
        "cosine": Part(
            "Mean cosine of each group's gradient with the others'",
            "Whether a step for this group helps the others (above 0) or hurts them (below 0), on average.",
            formula=r"\operatorname*{mean}_{k' \ne k}\ \cos(g_k, g_{k'})", references=(_UNRELATED,),
        ),
        "min_cosine": Part(
            "Smallest cosine of each group's gradient with another's",
            "How strongly this group pulls against the group that it conflicts with most.",
            formula=r"\min_{k' \ne k}\ \cos(g_k, g_{k'})", references=(_UNRELATED,),
        ),
        "conflicts": Part(
            "Share of groups in conflict", "How many pairs of groups have gradients that point against each other.",
            unit="share of pairs", chart=Chart.LINE,
            formula=r"\operatorname*{mean}_{k < k'}\ 1[\cos(g_k, g_{k'}) < 0]",
        ),
    }  # fmt: skip

    groups: Groups = ()

    def __post_init__(self) -> None:
        check_groups(self.groups, "groups", self.name)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return norms and cosines by group, and the share of conflicts."""
        index, names = sample_groups(self.groups, snapshot.num_samples, "groups", "train")
        gram = gram_of(group_gradients(snapshot, index, len(names)))
        norms = gram.diagonal().sqrt()
        kept = [k for k in range(len(names)) if norms[k] > 0]
        left_out = {names[k]: "its gradient is zero" for k in range(len(names)) if k not in kept}
        cosines = pairwise_cosines(gram[kept][:, kept])
        return {
            "norm": Reading(norms, keys=names),
            "cosine": or_missing(
                lambda: with_pairs(_by_group(cosines, [names[k] for k in kept], left_out, torch.mean))
            ),
            "min_cosine": or_missing(lambda: _by_group(cosines, [names[k] for k in kept], left_out, torch.amin)),
            "conflicts": or_missing(lambda: _conflicts(cosines)),
        }


def _check_pairs(cosines: Tensor) -> None:
    if len(cosines) < 2:
        raise Missing(f"{len(cosines)} groups have a gradient that is not zero, a cosine needs two")


def _by_group(cosines: Tensor, names: Sequence[str], left_out: Mapping[str, str], over: Over) -> Reading:
    _check_pairs(cosines)
    others = ~torch.eye(len(cosines), dtype=torch.bool)
    values = {name: float(over(row[other])) for name, row, other in zip(names, cosines, others, strict=True)}
    reading = by_layer(values, left_out, "")
    return Reading(reading.value, keys=reading.keys, details={**reading.details, "cosines": cosines})


def _conflicts(cosines: Tensor) -> Reading:
    _check_pairs(cosines)
    rows, columns = torch.triu_indices(len(cosines), len(cosines), offset=1)
    return Reading(float((cosines[rows, columns] < 0).double().mean()))
