"""Both ends of the Hessian of each class's mean loss.

P trainable parameters, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import defined
from trainvitals.diagnostics.linalg.hvp import HessianOperator
from trainvitals.diagnostics.linalg.lanczos import Extremes, lanczos
from trainvitals.schema import Chart, Question, Reading, ReferenceLine, Scale

MAX_CLASSES = 20  # a Lanczos run each


@dataclass
class HessianPerClass(Diagnostic):
    """λ1 and λP of the Hessian of class c's mean loss, and |λP|/λ1, for each class in the train probe.

    H_c = ∇² (1/N_c) Σ_{y_i = c} ℓ_i. With few samples of a class training can sit at a saddle of that class's
    own loss, λP well below 0, while the mean over all classes looks like a minimum. The errors are estimated as
    in `hessian.top`; classes without samples in the probe are left out, and `details` names them. The ratio is
    NaN where λ1 is not positive.

    Args:
        classes: which; all with samples in the probe unless told, which is for 20 at most.
        tol: relative accuracy of each eigenvalue, by its estimated error.
        max_iterations: most Hessian-vector products for each class, on its samples alone.

    Source: Rangwani et al. 2022 (Escaping Saddle Points for Effective Generalization on Class-Imbalanced Data).
    """

    name: ClassVar = "hessian.per_class"
    group: ClassVar = "hessian"
    title: ClassVar = "Hessian of each class"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "Whether the loss of each class by itself is at a minimum or at a saddle."
    formula: ClassVar = r"\lambda_1(\nabla^2 L_c)"
    unit: ClassVar = "loss / weight²"
    undefined: ClassVar = (
        "not a classifier; more than 20 classes in the probe unless named; a product with the Hessian is not finite"
    )
    source: ClassVar = "Rangwani et al. 2022"
    needs: ClassVar = Needs.HVP | Needs.OUTPUTS
    tier: ClassVar = Tier.FULL
    interval: ClassVar = 500
    chart: ClassVar = Chart.HEATMAP
    scale: ClassVar = Scale.SYMLOG
    keys: ClassVar = "class"
    parts: ClassVar = {
        "top": Part("Sharpness of each class", "The largest curvature of each class's own loss."),
        "bottom": Part(
            "Negative curvature of each class", "The smallest curvature of each class's own loss: below 0 is a saddle.",
            formula=r"\lambda_P(\nabla^2 L_c)",
        ),
        "ratio": Part(
            "Negative over largest curvature of each class", "Near 0 is a minimum of the class's own loss.", unit="1",
            formula=r"|\lambda_P(\nabla^2 L_c)| / \lambda_1(\nabla^2 L_c)", scale=Scale.LINEAR,
            references=(ReferenceLine("minimum", 0.0, "by the definition"),),
        ),
    }  # fmt: skip

    classes: Sequence[int] | None = None
    tol: float = 1e-3
    max_iterations: int = 100

    def __post_init__(self) -> None:
        if (self.classes is not None and len(self.classes) == 0) or not self.tol > 0 or self.max_iterations < 2:
            raise ValueError(
                f"expected one class or more, tol > 0 and max_iterations ≥ 2, got classes={self.classes}, "
                f"tol={self.tol}, max_iterations={self.max_iterations} in options of 'hessian.per_class'; "
                "leave them out for all classes"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return λ1, λP and |λP|/λ1 of each class, with the classes as keys."""
        rows, absent = self._rows(snapshot)
        found: dict[str, Extremes] = {}
        with defined():
            for name, samples in rows.items():
                operator = HessianOperator(snapshot.losses_of(samples), snapshot.parameters, snapshot.products)
                found[name] = lanczos(
                    operator, 1, 1, tol=self.tol, generator=snapshot.generator(f"{self.name} {name}"),
                    max_iterations=self.max_iterations,
                )  # fmt: skip
                operator.release()
        runs, keys = list(found.values()), tuple(found)
        converged = np.array([bool(r.top.converged[0] and r.bottom.converged[0]) for r in runs])
        num_products = sum(r.num_products for r in runs)
        details = {"converged": converged, "absent": absent, "num_samples": [len(r) for r in rows.values()]}

        def reading(value: np.ndarray, error: np.ndarray, hvps: int = 0) -> Reading:
            return Reading(value, error, bool(converged.all()), keys, hvps=hvps, details=details)

        top, top_error = (np.array([getattr(r.top, part)[0] for r in runs]) for part in ("values", "errors"))
        low, low_error = (np.array([getattr(r.bottom, part)[0] for r in runs]) for part in ("values", "errors"))
        size = np.where(top > 0, top, np.nan)
        ratio = np.abs(low) / size
        return {
            "top": reading(top, top_error, num_products),
            "bottom": reading(low, low_error),
            "ratio": reading(ratio, (low_error + ratio * top_error) / size),
        }

    def _rows(self, snapshot: Snapshot) -> tuple[dict[str, list[int]], list[int]]:
        """Return the samples of each class that has some, and the classes asked for that have none."""
        labels, num_classes = snapshot.train.labels()
        wanted = range(num_classes) if self.classes is None else self.classes
        outside = [c for c in wanted if not 0 <= c < num_classes]
        if outside:
            raise Missing(f"there are no classes {outside}: the outputs have {num_classes}")
        rows = {c: (labels == c).nonzero().flatten().tolist() for c in wanted}
        present = {str(c): samples for c, samples in rows.items() if samples}
        if self.classes is None and len(present) > MAX_CLASSES:
            raise Missing(
                f"{len(present)} classes, a Lanczos run each: name up to {MAX_CLASSES} or more with the option classes"
            )
        if not present:
            raise Missing(f"the train probe has no samples of the classes {list(wanted)}")
        return present, [c for c, samples in rows.items() if not samples]
