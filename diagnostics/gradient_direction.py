"""Do mini-batches point the same way: with each other, and with all samples of the probe.

Legend: N samples, K = 16 mini-batches of N/K samples, b_k the gradient summed over mini-batch k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.gradient_alignment import finite_sums
from trainvitals.diagnostics.gradient_sums import NUM_BLOCKS
from trainvitals.diagnostics.jackknife import jackknife_error
from trainvitals.schema import Question, Reading, ReferenceLine


def direction_variance(gram: Tensor) -> float:
    """Return the mean of 1 − cos over all pairs of mini-batches, from their inner products.

    Args:
        gram: (K, K) ⟨b_j, b_k⟩, K at least 2, no b zero.

    >>> direction_variance(torch.tensor([[1.0, 0.0], [0.0, 4.0]]))  # two at right angles
    1.0
    """
    norms = gram.diagonal().sqrt()
    cosines = gram / torch.outer(norms, norms)
    K = len(gram)
    return 1 - float((cosines.sum() - K) / (K * (K - 1)))


def direction_error(gram: Tensor) -> float:
    """Return the mean of 1 − cos between each mini-batch and the sum of all, from their inner products (K, K).

    >>> round(direction_error(torch.eye(2)), 6)  # 1 − 1/√2
    0.292893
    """
    cosines = gram.sum(1) / (gram.diagonal().sqrt() * gram.sum().sqrt())
    return 1 - float(cosines.mean())


@dataclass
class GradientDirection(Diagnostic):
    """How far mini-batch gradients point apart: from each other, and from the gradient of the whole probe.

    `variance`: mean of 1 − cos over all pairs of mini-batches. `error`: mean of 1 − cos between a mini-batch and
    the whole probe, which holds the mini-batch itself. Both in [0, 2]: 0 is one direction, 1 right angles. The
    mini-batches are the 16 blocks of N/16 samples i, i + 16, i + 32…, so both depend on the probe's size:
    `details["batch_size"]` is N/16. The standard error leaves out one mini-batch at a time;
    it is 20 to 50 % too wide where the mini-batches agree by chance only. No options.

    Source: Liu et al. 2023 (Dropout Reduces Underfitting), with cosine distance taken as 1 − cos.
    """

    name: ClassVar = "grad.direction"
    title: ClassVar = "Directions of mini-batch gradients"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "How far the gradients of mini-batches point apart."
    formula: ClassVar = r"1 - \cos"
    undefined: ClassVar = (
        "Fewer than 16 samples, a gradient with NaN or Inf, a mini-batch or the whole with a gradient of zero, or sums "
        "per block that do not fit into memory."
    )
    source: ClassVar = "Liu, Xu, Jin, Shen, Darrell 2023, Dropout Reduces Underfitting"
    needs: ClassVar = Needs.PER_SAMPLE_GRADIENTS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 100
    references: ClassVar = (ReferenceLine("right angles", 1.0, "by the definition"),)
    parts: ClassVar = {
        "variance": Part(
            "Direction variance of gradients", "How far the gradients of two mini-batches point apart.",
            formula=r"\operatorname*{mean}_{j<k}\ 1 - \cos(b_j, b_k)",
        ),
        "error": Part(
            "Direction error of gradients", "How far a mini-batch's gradient points away from that of the whole probe.",
            formula=r"\operatorname*{mean}_k\ 1 - \cos(b_k, \textstyle\sum_j b_j)",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return both cosine distances with their standard errors."""
        sums = finite_sums(snapshot)
        if sums.num_samples < NUM_BLOCKS:
            raise Missing(f"{sums.num_samples} samples are fewer than the {NUM_BLOCKS} mini-batches")
        if sums.block_sums is None:
            raise Missing(sums.without_block_sums or "")
        gram = (sums.block_sums @ sums.block_sums.T).double().cpu()  # (K, K)
        if not (gram.diagonal() > 0).all():
            raise Missing("the gradient of a mini-batch is zero: it has no direction")
        if not gram.sum() > 0:
            raise Missing("the gradient of the whole probe is zero: it has no direction")
        details = {"batch_size": sums.num_samples / NUM_BLOCKS}
        return {
            part: Reading(of(gram), _error(of, gram), details=details)
            for part, of in {"variance": direction_variance, "error": direction_error}.items()
        }


def _error(of: Callable[[Tensor], float], gram: Tensor) -> float | None:
    rest = ~torch.eye(len(gram), dtype=torch.bool)
    left_out = torch.tensor([of(gram[keep][:, keep]) for keep in rest], dtype=torch.float64)
    return jackknife_error(of(gram), left_out, torch.ones(len(gram))) if left_out.isfinite().all() else None
