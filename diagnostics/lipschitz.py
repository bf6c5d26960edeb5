"""How steep the network is at the samples of the probe: the norm of its outputs' Jacobian by its inputs.

Legend: n samples, C outputs of one, D entries of its input, J_i (C, D) Jacobian at sample i.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.input_loss import InputLoss, gradient_by_inputs
from trainvitals.schema import Question, Reading, Scale

MAX_OUTPUTS = 128
MAX_BYTES = 2**28  # that the Jacobians of the samples of one pass may take


def jacobians(loss: InputLoss) -> Tensor:
    """Return J_i of each sample, (n, C, D), one backward pass an output. Samples must not depend on each other.

    Raises:
        Missing: if there are more than 128 outputs, none depends on the inputs, or a derivative is not finite.
    """
    leaf = loss.inputs.detach().requires_grad_(True)
    with torch.enable_grad():
        z = loss.outputs(leaf)
        if z.ndim == 0 or len(z) != loss.num_samples:
            raise Missing("the model's outputs have no row for each sample")
        z = z.flatten(1) if z.ndim > 1 else z[:, None]  # (n, C)
        if z.shape[1] > MAX_OUTPUTS:
            raise Missing(f"each sample has {z.shape[1]} outputs, more than {MAX_OUTPUTS}")
        sums = z.sum(0)
        rows = [gradient_by_inputs(sums[c], leaf, keeps_graph=c + 1 < len(sums)).flatten(1) for c in range(len(sums))]
    return torch.stack(rows, 1)


def spectral_norms(matrices: Tensor) -> Tensor:
    """Return the largest singular value of each matrix (n, C, D), (n,) in float64, by the smaller Gram matrix.

    >>> spectral_norms(torch.tensor([[[3.0, 4.0]], [[1.0, 0.0]]])).tolist()
    [5.0, 1.0]
    """
    wide = matrices.double() if matrices.shape[1] <= matrices.shape[2] else matrices.double().mT
    return torch.linalg.eigvalsh(wide @ wide.mT)[:, -1].clamp(min=0).sqrt()


@dataclass
class Lipschitz(Diagnostic):
    """Largest singular value of the Jacobian of the outputs by the inputs, over samples of the train probe.

    `largest` is a lower bound on the network's Lipschitz constant between points in the Euclidean norm, and the exact
    one at that sample: max_i σ_max(J_i). `mean`: over the samples, with the standard error of the mean for the data
    that the probe was drawn from. Exact for the samples, which the run's seed draws once. Details of `largest`:
    `sample`, its place in the probe.

    Args:
        num_samples: samples of the train probe; None for all. Costs C backward passes to their inputs.
    """

    num_samples: int | None = 64

    name = "lipschitz"
    title = "Steepness at the samples"
    question = Question.STABILITY
    summary = "How far the outputs move for a unit change of the input, at the samples of the train probe."
    formula = r"\sigma_{\max}\bigl(\partial f / \partial x\bigr|_{x_i}\bigr)"
    unit = "output / input"
    undefined = (
        "Inputs that are not floating-point numbers; a model that is called through forward=; probe passes in train "
        "mode, where samples depend on each other; more than 128 outputs; outputs without a derivative by the inputs, "
        "or with one of NaN or Inf."
    )
    source = (
        "Novak et al. 2018, Sensitivity and Generalization in Neural Networks: an Empirical Study, section 2 "
        "(input-output Jacobian; there its Frobenius norm)"
    )
    needs = Needs.OUTPUTS
    tier = Tier.ON_REQUEST
    interval = 500
    scale = Scale.LOG
    passes = "a forward pass and a backward pass for each output over a subset"
    parts = {
        "largest": Part(
            "Largest steepness", "How steep the network is at the steepest sample: no Lipschitz constant is smaller.",
            formula=r"\max_i \sigma_{\max}(J_i)",
        ),
        "mean": Part(
            "Mean steepness", "How steep the network is at the samples, on average.",
            formula=r"\frac{1}{n}\sum_i \sigma_{\max}(J_i)",
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.num_samples is not None and (type(self.num_samples) is not int or self.num_samples < 1):
            raise ValueError(
                f"expected a whole number of at least 1 or None, got num_samples={self.num_samples!r} in options of "
                "'lipschitz'; leave it out for 64"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return the largest and the mean norm."""
        if snapshot.mode == "train":
            raise Missing("probe passes are in train mode, where samples can depend on each other; use mode='eval'")
        order = torch.randperm(snapshot.num_samples, generator=snapshot.generator("lipschitz"))
        chosen = order[: self.num_samples].sort().values
        found, start = [], 0
        for loss in snapshot.input_losses():
            inside = chosen[(chosen >= start) & (chosen < start + loss.num_samples)] - start
            start += loss.num_samples
            if len(inside):
                found.append(_norms(loss, inside.to(loss.inputs.device)))
        norms = torch.cat(found).cpu()
        highest = int(norms.argmax())
        error = float(norms.std() / len(norms) ** 0.5) if len(norms) > 1 else None
        return {
            "largest": Reading(float(norms[highest]), details={"sample": int(chosen[highest])}),
            "mean": Reading(float(norms.mean()), error, details={"num_samples": len(norms)}),
        }


def _norms(loss: InputLoss, rows: Tensor) -> Tensor:
    """Return the norms at some samples of a batch, in pieces whose Jacobians fit into memory."""
    assert loss.of is not None  # batches of a snapshot have it
    per_sample = MAX_OUTPUTS * loss.inputs[0].numel() * loss.inputs.element_size()
    pieces = rows.split(max(1, MAX_BYTES // max(1, per_sample)))
    return torch.cat([spectral_norms(jacobians(loss.of(piece))) for piece in pieces])
