"""Top eigenvalue and trace of each layer's diagonal block of the Hessian.

P trainable parameters, L layers, n probe vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainvitals.diagnostics.base import Diagnostic, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import defined
from trainvitals.diagnostics.linalg.block import BlockOperator, layers, matching_names
from trainvitals.diagnostics.linalg.lanczos import Eigenpairs, lanczos
from trainvitals.diagnostics.linalg.multiply import multiply_rows, offered_block
from trainvitals.diagnostics.linalg.trace import random_signs
from trainvitals.schema import Chart, Question, Reading, Scale


@dataclass
class HessianPerLayer(Diagnostic):
    """Curvature layer by layer: λ1 and trace of each diagonal block H_ll.

    A layer is a module with the parameters that it owns itself (weight and bias together). `top` is
    λ1(H_ll) by Lanczos on the block; its error is estimated as in `hessian.top`. `trace` is mean z_lᵀ(Hz)_l with z
    of signs ±1 over all parameters: one Hessian-vector product serves all layers, and what the other
    layers add has mean zero. Its error is the standard error over the probes.

    Args:
        tol: relative accuracy of `top`, by its estimated error.
        max_iterations: most products for each layer.
        num_probes: n, products for the traces of all layers.
        blocks: names of blocks and patterns of parameter names (`*`, `?`, `[]`) in place of the layers, such
            as {"attention": "*attn*"}.

    Source: blocks as in Ghorbani, Krishnan, Xiao 2019; trace, Hutchinson 1990.
    """

    name: ClassVar = "hessian.per_layer"
    group: ClassVar = "hessian"
    title: ClassVar = "Hessian of each layer"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "Which layers the curvature sits in."
    formula: ClassVar = r"\lambda_1(\nabla_{\theta_l}^2 L)"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = "a product with the Hessian is not finite (the loss has overflowed or diverged)"
    source: ClassVar = "Hutchinson 1990; Ghorbani, Krishnan, Xiao 2019"
    needs: ClassVar = Needs.HVP
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "layer"
    parts: ClassVar = {
        "top": Part("Sharpness of each layer", "The largest curvature when only this layer moves."),
        "trace": Part(
            "Hessian trace of each layer", "The sum of the curvatures of this layer's weights.",
            formula=r"\operatorname{tr} \nabla_{\theta_l}^2 L",
        ),
    }  # fmt: skip

    tol: float = 1e-2
    max_iterations: int = 50
    num_probes: int = 32
    blocks: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.tol > 0 or self.max_iterations < 2 or self.num_probes < 2:
            raise ValueError(
                f"expected tol > 0, max_iterations ≥ 2 and num_probes ≥ 2, got tol={self.tol}, "
                f"max_iterations={self.max_iterations}, num_probes={self.num_probes} in options of "
                "'hessian.per_layer'; a standard error needs at least two probes"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return λ1 and trace of each block, with the layers' names as keys."""
        names = self._blocks(snapshot)
        with defined():
            return {"top": self._top(snapshot, names), "trace": self._trace(snapshot, names)}

    def _blocks(self, snapshot: Snapshot) -> dict[str, list[str]]:
        if self.blocks is None:
            return layers(snapshot.parameters)
        return {key: matching_names(snapshot.parameters, pattern) for key, pattern in self.blocks.items()}

    def _top(self, snapshot: Snapshot, names: Mapping[str, list[str]]) -> Reading:
        found: list[Eigenpairs] = []
        num_products = 0
        for layer, block in names.items():
            run = lanczos(  # two values, so that it cannot settle on λ2 with a start that lies across from λ1
                BlockOperator(snapshot.hessian, snapshot.parameters, block), 2, tol=self.tol,
                generator=snapshot.generator(f"{self.name} {layer}"), max_iterations=self.max_iterations,
            )  # fmt: skip
            found.append(run.top)
            num_products += run.num_products
        converged = np.array([bool(pairs.converged[0]) for pairs in found])
        return Reading(
            np.array([pairs.values[0] for pairs in found]), np.array([pairs.errors[0] for pairs in found]),
            bool(converged.all()), tuple(names), hvps=num_products,
            details={"converged": converged, "residuals": np.array([pairs.residuals[0] for pairs in found])},
        )  # fmt: skip

    def _trace(self, snapshot: Snapshot, names: Mapping[str, list[str]]) -> Reading:
        operator, generator = snapshot.hessian, snapshot.generator(f"{self.name} trace")
        samples = np.empty((self.num_probes, len(names)))
        for start in range(0, self.num_probes, offered_block(operator)):
            rows = samples[start : start + offered_block(operator)]
            signs = random_signs(operator, generator, len(rows))  # (k, P)
            for row, z, product in zip(rows, signs, multiply_rows(operator, signs), strict=True):
                terms = operator.split(z.double() * product.double())
                sums = {name: float(term.sum()) for name, term in terms.items()}
                row[:] = [sum(sums[name] for name in block) for block in names.values()]
        error = samples.std(0, ddof=1) / math.sqrt(self.num_probes)
        return Reading(samples.mean(0), error, keys=tuple(names), hvps=self.num_probes,
                       details={"num_probes": self.num_probes})  # fmt: skip
