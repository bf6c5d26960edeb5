"""The diagonal of the Hessian of the probe loss, by parameter tensor.

P trainable parameters, n probe vectors, p_l entries of tensor l, L tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from trainvitals.diagnostics.base import Diagnostic, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import UNDEFINED, defined
from trainvitals.diagnostics.linalg.diagonal import DiagonalEstimate, hutchinson_diagonal
from trainvitals.schema import Chart, Question, Reading, Scale


@dataclass
class HessianDiagonal(Diagnostic):
    """Mean and root mean square of the Hessian's diagonal in each parameter tensor.

    `mean` is (1/p_l) Σ_i H_ii over the entries of tensor l, its share of the trace for one weight; `rms` is
    √((1/p_l) Σ_i H²_ii). Both come from the same n products z ⊙ Hz, z of signs ±1. The square of an estimate is
    too large by its variance, so `rms` multiplies different samples with each other; where that falls below
    zero, 0 is given. Errors are standard errors over the samples; twice that of `rms` is as far as two of
    the mean square reach, on the wider side.

    Args:
        num_probes: n, Hessian-vector products for all tensors together; 2 n vectors of size P are held.
        vector: put the estimate of the diagonal itself (P,), as the parameters lie, and its standard error into
            `details["diagonal"]` and `details["diagonal_error"]` of `mean`: for pruning and preconditioning.

    Source: Bekas, Kokiopoulou, Saad 2007; for networks, Yao et al. 2021 (AdaHessian).
    """

    name: ClassVar = "hessian.diagonal"
    group: ClassVar = "hessian"
    title: ClassVar = "Diagonal of the Hessian"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "The curvature of a single weight, in the mean over each parameter tensor."
    formula: ClassVar = r"\frac{1}{p_l} \sum_{i \in l} H_{ii}"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = UNDEFINED
    source: ClassVar = "Bekas, Kokiopoulou, Saad 2007; Yao et al. 2021"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "parameter"
    parts: ClassVar = {
        "mean": Part("Mean diagonal of the Hessian"),
        "rms": Part(
            "Root mean square of the Hessian's diagonal",
            "How large the curvature of a single weight is, whichever its sign.",
            formula=r"\sqrt{\frac{1}{p_l} \sum_{i \in l} H_{ii}^2}",
        ),
    }  # fmt: skip

    num_probes: int = 32
    vector: bool = False

    def __post_init__(self) -> None:
        if self.num_probes < 3:
            raise ValueError(
                f"expected num_probes ≥ 3, got {self.num_probes} in options of {self.name!r}; "
                "an error needs at least three probes"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return mean and rms with the parameters' names as keys."""
        with defined():
            found = hutchinson_diagonal(
                snapshot.hessian, generator=snapshot.generator(self.name), num_probes=self.num_probes
            )
        parts = _parts(snapshot)
        details: dict[str, Any] = {"num_probes": self.num_probes}
        if self.vector:
            details["diagonal"] = found.value.cpu().numpy()
            details["diagonal_error"] = found.standard_error.cpu().numpy()
        mean, error = np.array([found.mean(part) for part in parts.values()]).T
        rms, rms_error = np.array([_rms(found, part) for part in parts.values()]).T
        keys = tuple(parts)
        return {
            "mean": Reading(mean, error, keys=keys, hvps=self.num_probes, details=details),
            "rms": Reading(rms, rms_error, keys=keys, details={"shared_with": f"{self.name}.mean"}),
        }


def _parts(snapshot: Snapshot) -> dict[str, slice]:
    """Return where each parameter lies in flat vectors."""
    found, start = {}, 0
    for name, parameter in snapshot.parameters.items():
        found[name] = slice(start, start + parameter.numel())
        start += parameter.numel()
    return found


def _rms(found: DiagonalEstimate, part: slice) -> tuple[float, float]:
    square, error = found.mean_square(part)
    lowest, rms, highest = (math.sqrt(max(square + shift, 0.0)) for shift in (-2 * error, 0.0, 2 * error))
    return rms, max(rms - lowest, highest - rms) / 2
