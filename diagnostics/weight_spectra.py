"""Singular values of the weight matrices, and of how far they have moved since the start.

Legend: L weight matrices, W (m, n) one of them, σ its singular values in descending order, r = min(m, n).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.by_layer import by_layer
from trainvitals.schema import Chart, Question, Reading, Scale

# The price is O(m n r): a layer of 4096 × 4096 takes a minute on one core. Larger ones are left out.
MAX_RANK = 4096


class Spectra(NamedTuple):
    """Singular values by parameter name, and the reasons of the weight matrices that have none."""

    values: Mapping[str, Tensor]  # name -> (r,) float64 on the CPU, descending
    left_out: Mapping[str, str]
    shapes: Mapping[str, tuple[int, int]]  # name -> (m, n)


def as_matrix(weight: Tensor) -> Tensor:
    """Return a weight as a matrix (out, everything else): a convolution's kernel as (out, in·kh·kw).

    >>> as_matrix(torch.zeros(8, 3, 5, 5)).shape
    torch.Size([8, 75])
    """
    return weight.reshape(len(weight), -1)


def roots_of_gram(gram: Tensor) -> Tensor:
    """Return the singular values of a matrix from its rows' inner products, in descending order, float64.

    Ten times faster than an SVD on a wide matrix. Eigenvalues below r·ε of the largest are rounding and count as
    zero, so a singular value below √(r·ε) of the largest is lost: 5e-7 of it at r = 1000, the rounding of float32.

    Args:
        gram: (r, r), symmetric, float64.

    >>> roots_of_gram(torch.tensor([[4.0, 0.0], [0.0, 9.0]], dtype=torch.float64)).tolist()
    [3.0, 2.0]
    """
    values = torch.linalg.eigvalsh(gram).flip(0)
    rounding = len(gram) * torch.finfo(torch.float64).eps * values[0]
    return torch.where(values > rounding, values, 0.0).sqrt()


def singular_values(weights: Mapping[str, Tensor]) -> Spectra:
    """Return the singular values of every tensor with two dimensions or more, in float64.

    Biases and gains have no spectrum and are passed over; a matrix that is too large or holds NaN or Inf is
    left out with the reason.
    """
    found, left_out, shapes = {}, {}, {}
    for name, weight in weights.items():
        if weight.ndim < 2 or weight.numel() == 0:
            continue
        matrix = as_matrix(weight)
        if min(matrix.shape) > MAX_RANK:
            left_out[name] = f"its {min(matrix.shape)} singular values are more than {MAX_RANK}"
        elif not matrix.isfinite().all():
            left_out[name] = "it holds NaN or Inf"
        else:
            wide = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().T
            found[name] = roots_of_gram(wide @ wide.T).cpu()
            shapes[name] = (matrix.shape[0], matrix.shape[1])
    return Spectra(found, left_out, shapes)


def weight_spectra(snapshot: Snapshot) -> Spectra:
    """Return the spectra of the weights; several diagnostics share them through `snapshot.once`."""
    return singular_values(snapshot.parameters)


def stable_rank(sigma: Tensor) -> float:
    """Return ‖W‖²_F/σ²_max, in [1, r]: robust to small singular values, never above the rank.

    >>> stable_rank(torch.tensor([2.0, 2.0, 0.0]))
    2.0
    """
    return float((sigma.double() / sigma.double().max()).square().sum())


def effective_rank(sigma: Tensor) -> float:
    """Return exp(H(p)), p = σ/Σσ, H the entropy in nats, in [1, r] (Roy and Vetterli 2007).

    >>> round(effective_rank(torch.tensor([2.0, 2.0, 0.0])), 12)
    2.0
    """
    p = sigma.double() / sigma.double().sum()
    return float(torch.special.entr(p).sum().exp())


def _by_matrix(spectra: Spectra, function: Callable[[Tensor], float], zero: str | None = None) -> Reading:
    """Return `function` of each spectrum; where a spectrum of zeros has none, `zero` says why."""
    left_out = dict(spectra.left_out)
    if zero is not None:
        left_out |= {name: zero for name, sigma in spectra.values.items() if not sigma.any()}
    values = {name: function(sigma) for name, sigma in spectra.values.items() if name not in left_out}
    return by_layer(values, left_out, "the model has no weight matrix")


@dataclass
class WeightSpectra(Diagnostic):
    """Largest singular value, stable rank and effective rank of each weight matrix.

    σ_max; ‖W‖²_F/σ²_max; exp(H(σ/Σσ)). Each part is (L,), exact up to singular values below about 1e-6 of the
    largest, which count as zero, over tensors of two dimensions or more, by parameter name. A convolution's
    kernel (out, in, kh, kw) is taken as (out, in·kh·kw): that is not the norm of the convolution as an operator
    on images. Matrices that a layer stacks in one tensor (`in_proj_weight`) are taken as they are stacked. A
    matrix that is zero has no rank, one with NaN or with more than 4096 singular values has nothing:
    `details["left_out"]` names them. No options.

    Source: Roy and Vetterli 2007 (effective rank); Rudelson and Vershynin 2007 (stable, or numerical, rank).
    """

    name: ClassVar = "weights.spectral"
    title: ClassVar = "Spectra of the weights"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "Largest singular value and ranks of each weight matrix."
    formula: ClassVar = r"\sigma_{\max}(W_l)"
    unit: ClassVar = "norm of weights"
    undefined: ClassVar = "No weight matrix that is finite and has at most 4096 singular values; ranks: it is zero."
    source: ClassVar = (
        "Roy, Vetterli 2007, The effective rank, section 2; Rudelson, Vershynin 2007, Sampling from large matrices, "
        "section 1 (numerical rank)"
    )
    needs: ClassVar = Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    scale: ClassVar = Scale.LOG
    keys: ClassVar = "parameter"
    parts: ClassVar = {
        "sigma_max": Part("Largest singular value per layer", "How much a layer can stretch its input."),
        "stable_rank": Part(
            "Stable rank per layer", "Squared Frobenius norm over squared largest singular value; at least 1.",
            unit="1", formula=r"\lVert W_l\rVert_F^2 / \sigma_{\max}^2",
        ),
        "effective_rank": Part(
            "Effective rank per layer", "Over how many directions the singular values are spread; at least 1.",
            unit="1", formula=r"\exp H(\sigma / \textstyle\sum\sigma)",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return one value per weight matrix for each part."""
        return _largest_and_ranks(snapshot.once(weight_spectra), "it is zero", stable_rank=stable_rank)


@dataclass
class DeltaSpectrum(Diagnostic):
    """Largest singular value and effective rank of the change of each weight matrix since the start.

    σ_max and exp(H(σ/Σσ)) of W(t) − W(0), each (L,), computed and on matrices as in `weights.spectral`. A
    low effective rank says that training moves the layer in few directions. A matrix that has not moved has
    no rank: `details["left_out"]` names it. No options.

    Source: Hu et al. 2022 (LoRA: the change of weights has low rank); Roy and Vetterli 2007 (effective rank).
    """

    name: ClassVar = "delta.spectrum"
    title: ClassVar = "Spectrum of the change of the weights"
    question: ClassVar = Question.WEIGHTS
    summary: ClassVar = "How far, and in how many directions, each weight matrix has moved since the start."
    formula: ClassVar = r"\sigma_{\max}(W_l(t) - W_l(0))"
    unit: ClassVar = "norm of weights"
    undefined: ClassVar = "The start is not known, or has other shapes; effective rank: no weight matrix has moved."
    source: ClassVar = "Hu et al. 2022, LoRA, section 7.3; Roy, Vetterli 2007, The effective rank, section 2"
    needs: ClassVar = Needs.PARAMETERS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "parameter"
    parts: ClassVar = {
        "sigma_max": Part(
            "Largest singular value of the change", "How far each weight matrix has moved in its foremost direction."
        ),
        "effective_rank": Part(
            "Effective rank of the change", "In how many directions each weight matrix has moved.",
            unit="1", formula=r"\exp H(\sigma / \textstyle\sum\sigma),\ \sigma = \sigma(W_l(t) - W_l(0))",
        ),
    }  # fmt: skip

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return one value per weight matrix for each part."""
        now, start = snapshot.parameters, snapshot.initial_parameters
        change = {}
        for name, weight in now.items():
            if name not in start or start[name].shape != weight.shape:
                raise Missing(f"the model at the start of the run has no {name!r} of shape {tuple(weight.shape)}")
            if weight.ndim > 1:
                change[name] = weight.double() - start[name].to(weight.device).double()
        return _largest_and_ranks(singular_values(change), "it has not moved")


def _largest_and_ranks(spectra: Spectra, zero: str, **more: Callable[[Tensor], float]) -> dict[str, Reading]:
    ranks = {**more, "effective_rank": effective_rank}
    return {
        "sigma_max": or_missing(lambda: _by_matrix(spectra, lambda sigma: float(sigma[0]))),
        **{part: or_missing(lambda f=f: _by_matrix(spectra, f, zero)) for part, f in ranks.items()},
    }
