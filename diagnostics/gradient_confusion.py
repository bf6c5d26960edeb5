"""How far the gradients of two samples conflict at worst, and in how many directions the gradients point.

Legend: N samples of the probe, n of them chosen, K (n, n) the inner products of their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Snapshot, Tier
from trainvitals.diagnostics.gradient_alignment import finite_sums
from trainvitals.diagnostics.weight_spectra import effective_rank, roots_of_gram
from trainvitals.schema import Question, Reading, ReferenceLine, Scale


def confusion(K: Tensor) -> float:
    """Return the smallest κ ≥ 0 with K_ij ≥ −κ for all i ≠ j.

    >>> confusion(torch.tensor([[1.0, -0.5], [-0.5, 2.0]]))
    0.5
    """
    return max(0.0, -float(K[~torch.eye(len(K), dtype=torch.bool)].min()))


def rank_of_rows(K: Tensor) -> float:
    """Return the effective rank of the rows whose inner products are K: exp(H(σ/Σσ)), σ² the eigenvalues of K.

    >>> round(rank_of_rows(torch.eye(3, dtype=torch.float64)), 9)
    3.0
    """
    return effective_rank(roots_of_gram(K))


def _products(snapshot: Snapshot) -> tuple[Tensor, dict[str, Any]]:
    """Return K and, as details, how many samples it holds. Raises Missing below two or if one is not finite."""
    sums = finite_sums(snapshot)
    gram = snapshot.gradient_gram
    num_chosen = len(gram.chosen)
    if num_chosen < 2:
        few = sums.num_samples < 2
        raise Missing(
            f"a pair needs 2 samples, the probe has {sums.num_samples}" if few
            else "the gradients of two samples do not fit into 1 GiB"
        )  # fmt: skip
    return gram.matrix(), {"num_samples": num_chosen, "num_probe": sums.num_samples}


@dataclass
class GradientConfusion(Diagnostic):
    """The smallest κ ≥ 0 with ⟨g_i, g_j⟩ ≥ −κ for all pairs of samples: 0 if no two gradients conflict.

    Exact over the pairs of n = min(N, 128) samples of the probe (fewer where n gradients would take more than
    1 GiB), drawn once by the run's seed. For n < N it is a lower bound of the probe's κ, which a pair not looked
    at may set. κ has the unit of a squared gradient and shrinks with it; `details["min_cosine"]` does not: the
    smallest cosine over the same pairs, gradients of zero left out. `details` also holds `share_in_conflict`, of
    pairs with a negative product, `pair`, the two samples that set κ, `num_samples` n and `num_probe` N. No options.

    Source: Sankararaman et al. 2020 (gradient confusion, definition 2.1).
    """

    name: ClassVar = "grad.confusion"
    title: ClassVar = "Gradient confusion"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "How far the gradients of two samples point against each other at worst; 0 is no conflict."
    formula: ClassVar = r"\max(0,\ -\min_{i \ne j} \langle g_i, g_j\rangle)"
    unit: ClassVar = "(loss per unit of weight)²"
    undefined: ClassVar = "Fewer than two samples, two gradients take more than 1 GiB, or one holds NaN or Inf."
    source: ClassVar = (
        "Sankararaman, De, Xu, Huang, Goldstein 2020, The Impact of Neural Network Overparameterization on Gradient "
        "Confusion and Stochastic Gradient Descent"
    )
    needs: ClassVar = Needs.PER_SAMPLE_GRADIENTS | Needs.GRADIENT_GRAM
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200
    scale: ClassVar = Scale.SYMLOG
    references: ClassVar = (ReferenceLine("no conflict", 0.0, "by the definition"),)

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return κ."""
        K, details = _products(snapshot)
        others = ~torch.eye(len(K), dtype=torch.bool)
        worst = int(torch.where(others, K, torch.inf).argmin())
        pair = sorted(int(snapshot.gradient_gram.chosen[i]) for i in divmod(worst, len(K)))
        details |= {"share_in_conflict": float((K[others] < 0).double().mean()), "pair": pair}
        norms = K.diagonal().sqrt()
        if int((norms > 0).sum()) > 1:
            units = K[norms > 0][:, norms > 0] / torch.outer(norms[norms > 0], norms[norms > 0])
            details["min_cosine"] = float(units[~torch.eye(len(units), dtype=torch.bool)].min())
        return Reading(confusion(K), details=details)


@dataclass
class GradientRank(Diagnostic):
    """Effective rank of the per-sample gradients: over how many directions they are spread.

    exp(H(σ/Σσ)), σ the singular values of the (n, P) matrix of gradients, not centred. In [1, n], exact for
    n = min(N, 128) samples of the probe (fewer where n gradients would take more than 1 GiB), drawn once by the
    run's seed: `details["num_samples"]`. It grows with n: compare it at equal n. No options.

    Source: Roy and Vetterli 2007 (effective rank); Lewandowski et al. 2024 (rank of gradients, and the loss of it).
    """

    name: ClassVar = "grad.rank"
    title: ClassVar = "Effective rank of the samples' gradients"
    question: ClassVar = Question.GRADIENTS
    summary: ClassVar = "Over how many directions the gradients of the samples are spread."
    formula: ClassVar = r"\exp H(\sigma/\textstyle\sum\sigma),\ \sigma = \sigma(g_1, \dots, g_n)"
    unit: ClassVar = "directions"
    undefined: ClassVar = (
        "Fewer than two samples, two gradients take more than 1 GiB, one holds NaN or Inf, or all are zero."
    )
    source: ClassVar = (
        "Roy, Vetterli 2007, The effective rank, section 2; Lewandowski et al. 2024, Learning Continually by Spectral "
        "Regularization"
    )
    needs: ClassVar = Needs.PER_SAMPLE_GRADIENTS | Needs.GRADIENT_GRAM
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 200

    def measure(self, snapshot: Snapshot) -> Reading:
        """Return the effective rank."""
        K, details = _products(snapshot)
        if not K.diagonal().any():
            raise Missing("the gradient of every sample is zero")
        return Reading(rank_of_rows(K), details=details)
