"""The empirical neural tangent kernel: how the outputs of samples move together when the weights do.

Legend: n samples, C outputs of one, P trainable parameters, J (nC, P) Jacobian of all outputs by the parameters,
K = JJᵀ (nC, nC).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier, or_missing
from trainvitals.diagnostics.batch_loss import BatchLoss
from trainvitals.diagnostics.gradient_groups import gram_of
from trainvitals.schema import Chart, Question, Reading, Scale

MAX_BYTES = 2**29  # that J may take
MAX_ROWS = 2048  # nC: eigenvalues cost their cube
_UNDEFINED = (
    "A model that is called through forward=, whose outputs are not one tensor, or that does not take one sample "
    "alone; samples and outputs whose Jacobian does not fit into memory; a Jacobian with NaN or Inf."
)
_SOURCE = "Jacot, Gabriel, Hongler 2018, Neural Tangent Kernel, section 4 (here at finite width, as it is)"


class Tangents(NamedTuple):
    """The kernel of some samples of the train probe, and how their loss pulls at their outputs."""

    kernel: Tensor  # (nC, nC) float64 on the CPU; the C outputs of the first sample come first
    residual: Tensor  # (nC,) derivative of each sample's own loss by its outputs
    rounding: float  # relative, of the Jacobian's entries
    rows: Tensor  # (n,) places of the samples in the train probe


def jacobian_rows(batch: BatchLoss, values: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the rows of the Jacobian of one sample's outputs, C of (P,), its outputs (C,) and ∂loss/∂outputs (C,).

    Args:
        batch: the loss on one sample.
        values: parameters, in the snapshot's order.
    """
    leaves = [value.detach().requires_grad_(True) for value in values]
    with torch.enable_grad():
        outputs = batch.outputs(leaves)
        flat = outputs.reshape(-1)
        rows = [_row(entry, leaves, keeps=i + 1 < len(flat)) for i, entry in enumerate(flat)]
        z = outputs.detach().requires_grad_(True)
        loss = batch.mean_of_outputs(z)
        residual = torch.autograd.grad(loss, z)[0] if loss.requires_grad else torch.zeros_like(z)
    return rows, flat.detach(), residual.reshape(-1)


def _row(entry: Tensor, leaves: Sequence[Tensor], *, keeps: bool) -> Tensor:
    if not entry.requires_grad:
        return torch.cat([torch.zeros_like(leaf).reshape(-1) for leaf in leaves])
    parts = torch.autograd.grad(entry, leaves, retain_graph=keeps, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])


@cache
def tangents_of(num_samples: int) -> Callable[[Snapshot], Tangents]:
    """Return the function that gives the kernel of so many samples, for `Snapshot.once`: one a number."""

    def tangents(snapshot: Snapshot) -> Tangents:
        order = torch.randperm(snapshot.num_samples, generator=snapshot.generator("tangent kernel"))
        chosen = order[:num_samples].sort().values
        values = list(snapshot.parameters.values())
        rows: list[Tensor] = []
        residuals: list[Tensor] = []
        for place in chosen.tolist():
            (batch,) = snapshot.losses_of([place])
            found, outputs, residual = _of_sample(batch, values)
            if not rows:
                _check_size(len(chosen), len(outputs), values)
            rows += found
            residuals.append(residual.double().cpu())
        kernel = gram_of(rows)
        if not kernel.isfinite().all():
            raise Missing("the Jacobian of the outputs holds NaN or Inf")
        return Tangents(kernel, torch.cat(residuals), torch.finfo(rows[0].dtype).eps, chosen)

    return tangents


def _of_sample(batch: BatchLoss, values: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
    try:
        return jacobian_rows(batch, values)
    except Missing:
        raise
    except Exception as error:
        raise Missing(f"the model does not take one sample alone: {error}") from error


def _check_size(num_samples: int, num_outputs: int, values: Sequence[Tensor]) -> None:
    row_bytes = sum(value.numel() * value.element_size() for value in values)
    fits = min(MAX_ROWS // num_outputs, MAX_BYTES // max(1, row_bytes * num_outputs))
    if num_samples > fits:
        raise Missing(
            f"the Jacobian of {num_samples} samples with {num_outputs} outputs each is too large (at most "
            f"{MAX_ROWS} rows and {MAX_BYTES / 2**20:.0f} MiB); num_samples={fits} fits"
        )


def _check_count(num_samples: int, name: str) -> None:
    if type(num_samples) is not int or num_samples < 1:
        raise ValueError(
            f"expected a whole number of at least 1, got num_samples={num_samples!r} in options of {name!r}; "
            "leave it out for 32"
        )


@dataclass
class TangentKernel(Diagnostic):
    """Ends and condition of the empirical neural tangent kernel K = JJᵀ on a subset of the train probe, and its change.

    `lambda_max` and `lambda_min`, its largest and smallest eigenvalue: under gradient flow of the squared error the
    residual shrinks along each eigenvector at the rate of its eigenvalue. `condition`: their ratio. `change`:
    ‖K − K_0‖_F/‖K_0‖_F against the instance's first measurement: near 0 as long as training is lazy. Exact up to
    the rounding of the Jacobian, for these samples, which the run's seed draws once. An eigenvalue below nC·ε·λmax
    is rounding: `lambda_min` is then 0 and there is no condition. Details: `samples`, their places in the probe.

    Args:
        num_samples: n; costs nC backward passes through one sample, nC·P numbers of memory and (nC)³ operations.
    """

    num_samples: int = 32
    _first: Tensor | None = field(default=None, init=False, repr=False)
    _first_step: int | None = field(default=None, init=False, repr=False)

    name: ClassVar = "ntk"
    title: ClassVar = "Neural tangent kernel (NTK)"
    question: ClassVar = Question.REPRESENTATION
    summary: ClassVar = "How fast, and how evenly, outputs can move with the weights, and whether that changes."
    formula: ClassVar = r"K_{(ic)(jd)} = \langle \nabla_\theta f_c(x_i),\ \nabla_\theta f_d(x_j) \rangle"
    unit: ClassVar = "(output / weight)²"
    undefined: ClassVar = (
        f"{_UNDEFINED} Condition: an eigenvalue that is zero to rounding, as with fewer parameters than outputs; "
        "change: the first measurement, or a kernel of zero there."
    )
    source: ClassVar = f"{_SOURCE}; change: Chizat, Oyallon, Bach 2019, On Lazy Training in Differentiable Programming"
    needs: ClassVar = Needs.OUTPUTS | Needs.PARAMETERS
    tier: ClassVar = Tier.ON_REQUEST
    interval: ClassVar = 1000
    passes: ClassVar = "a backward pass for each output of each sample of a subset"
    parts: ClassVar = {
        "lambda_max": Part(
            "Largest eigenvalue of the tangent kernel", "How fast the outputs can move, at most.",
            formula=r"\lambda_{\max}(JJ^\top)", scale=Scale.LOG,
        ),
        "lambda_min": Part(
            "Smallest eigenvalue of the tangent kernel", "How fast the slowest combination of outputs can be fitted.",
            formula=r"\lambda_{\min}(JJ^\top)", scale=Scale.SYMLOG,
        ),
        "condition": Part(
            "Condition of the tangent kernel", "How unevenly fast combinations of outputs can be fitted.",
            unit="1", formula=r"\lambda_{\max} / \lambda_{\min}", scale=Scale.LOG,
        ),
        "change": Part(
            "Change of the tangent kernel", "How far training is from lazy: 0 is a kernel that stands still.",
            unit="1", formula=r"\lVert K_t - K_0\rVert_F / \lVert K_0\rVert_F",
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        _check_count(self.num_samples, self.name)

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return both ends of the spectrum, the condition and the change."""
        found = snapshot.once(tangents_of(self.num_samples))
        first, first_step = self._first, self._first_step
        if first is None:
            self._first, self._first_step = found.kernel, snapshot.step
        values = torch.linalg.eigvalsh(found.kernel)  # ascending
        floor = len(values) * found.rounding * max(float(values[-1]), 0.0)
        smallest = float(values[0]) if float(values[0]) > floor else 0.0
        details = {"samples": found.rows.double()}
        return {
            "lambda_max": Reading(float(values[-1]), details=details),
            "lambda_min": Reading(smallest, details=details),
            "condition": or_missing(lambda: _condition(float(values[-1]), smallest)),
            "change": or_missing(lambda: _change(found.kernel, first, first_step)),
        }


def _condition(largest: float, smallest: float) -> Reading:
    if smallest == 0:
        raise Missing("the smallest eigenvalue is zero to rounding: the condition is infinite")
    return Reading(largest / smallest)


def _change(kernel: Tensor, first: Tensor | None, first_step: int | None) -> Reading:
    if first is None:
        raise Missing("this is the first measurement: there is no earlier kernel to compare with")
    if first.shape != kernel.shape:
        raise Missing("the model had another number of outputs at the first measurement")
    norm = float(first.norm())
    if norm == 0:
        raise Missing("the kernel was zero at the first measurement")
    return Reading(float((kernel - first).norm()) / norm, details={"step": first_step})


@dataclass
class JacobianSpectrum(Diagnostic):
    """The k largest singular values of the Jacobian of the outputs by the parameters, and what is left along each.

    `sigma`: singular values of J, (k,), descending, the roots of the tangent kernel's eigenvalues. `residual`: share
    of the energy of r, the derivative of the samples' losses by their outputs, along each left singular vector,
    (u_jᵀr)²/‖r‖², (k,). Steps on r fall off where σ is large: training first fits what lies along the leading modes.
    Exact up to rounding, for the samples of `ntk`; singular values below √(nC·ε) σ_max are rounding. Within modes of
    equal σ the split of the residual is arbitrary. Details: `captured`, the share along all k modes.

    Args:
        num_samples: n; price as `ntk`, and shared with it where both have the same n.
        k: modes, at most nC.
    """

    num_samples: int = 32
    k: int = 20

    name: ClassVar = "jacobian.spectrum"
    title: ClassVar = "Spectrum of the Jacobian"
    question: ClassVar = Question.REPRESENTATION
    summary: ClassVar = "Along which combinations of outputs the weights can act, and what is left to learn there."
    formula: ClassVar = r"J = \partial f / \partial \theta = \textstyle\sum_j \sigma_j u_j v_j^\top"
    undefined: ClassVar = f"{_UNDEFINED} Residual: no sample's loss depends on its outputs."
    source: ClassVar = (
        "Arora et al. 2019, Fine-Grained Analysis of Optimization and Generalization for Overparameterized Two-Layer "
        "Neural Networks, section 4 (residual along eigenvectors)"
    )
    needs: ClassVar = Needs.OUTPUTS | Needs.PARAMETERS
    tier: ClassVar = Tier.ON_REQUEST
    interval: ClassVar = 1000
    passes: ClassVar = TangentKernel.passes
    chart: ClassVar = Chart.HEATMAP
    keys: ClassVar = "rank"
    parts: ClassVar = {
        "sigma": Part(
            "Singular values of the Jacobian", "How far outputs move for a unit step of the weights, mode by mode.",
            unit="output / weight", formula=r"\sigma_j(J)", scale=Scale.LOG,
        ),
        "residual": Part(
            "Residual along each mode", "How much of what is left to fit lies along each mode of the Jacobian.",
            unit="share", formula=r"(u_j^\top r)^2 / \lVert r\rVert^2,\ r = \partial \ell / \partial f",
        ),
    }  # fmt: skip

    def __post_init__(self) -> None:
        _check_count(self.num_samples, self.name)
        if type(self.k) is not int or self.k < 1:
            raise ValueError(
                f"expected a whole number of at least 1, got k={self.k!r} in options of {self.name!r}; "
                "leave it out for 20"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return singular values and residual shares of the leading modes."""
        found = snapshot.once(tangents_of(self.num_samples))
        values, vectors = torch.linalg.eigh(found.kernel)
        leading = values.flip(0)[: self.k]
        keys = tuple(str(j + 1) for j in range(len(leading)))
        modes = vectors.flip(1)[:, : self.k]
        return {
            "sigma": Reading(leading.clamp(min=0).sqrt(), keys=keys),
            "residual": or_missing(lambda: _residual(modes, found.residual, keys)),
        }


def _residual(modes: Tensor, residual: Tensor, keys: tuple[str, ...]) -> Reading:
    energy = float(residual.square().sum())
    if not 0 < energy < float("inf"):
        raise Missing("the derivative of the loss by the outputs is zero or not finite")
    shares = (modes.T @ residual).square() / energy
    return Reading(shares, keys=keys, details={"captured": float(shares.sum())})
