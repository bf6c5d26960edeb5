"""The edge of stability: the sharpness at which the optimiser starts to bounce, and how near it is.

P trainable parameters; η learning rate, β momentum, λ an eigenvalue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, Part, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import HessianTop, defined, hessian_extremes
from trainvitals.diagnostics.linalg.lanczos import Eigenpairs, lanczos
from trainvitals.diagnostics.linalg.preconditioned import PreconditionedOperator
from trainvitals.diagnostics.stability_rules import StabilityRule, stability_rule
from trainvitals.schema import Question, Reading, ReferenceLine, Scale

_COHEN = "Cohen et al. 2021, §2 and App. B; Cohen et al. 2022, §2"


@dataclass
class Stability(Diagnostic):
    """Sharpness against the optimiser's stability threshold; a ratio of 1 is the edge of stability.

    On a quadratic, full-batch steps converge while the sharpness is below the threshold:

    - SGD: λ1(H) < 2/η; heavy ball: 2(1+β)/η, over 1−d with dampening d; Nesterov: 2(1+β)/((1+2β)η).
    - Adam, AdamW, Adamax, RAdam, SparseAdam: λ1(P⁻¹H) < (2+2β₁)/((1−β₁)η), P what the momentum is divided
      by, bias corrections included, held fixed; 38/η at β₁ = 0.9. NAdam: 2(1+β₁)/((1−β₁)(1+2β₁)η).
    - RMSprop: λ1(P⁻¹H) < 2(1+β)/η; Adagrad, Adadelta, ASGD: 2/η.

    `sharpness` is the λ1 that is compared: raw for SGD, preconditioned for the others. A coupled L2 penalty
    (`weight_decay` of all but AdamW, `lambd` of ASGD) adds its weight to H on its parameters; decoupled decay
    w (AdamW, `decoupled_weight_decay=True`) does not: it lowers the threshold by the factor 1 − ηw/2. With
    groups of unlike settings the threshold is that of the group with the lowest, and H is scaled for each of
    the others by lowest/own: the ratio is exact. With maximize=True the sharpness is that of −L. `details`
    says which of these entered.

    Args:
        tol: relative accuracy of λ1, by its estimated error (`hessian.top` says how). If λ1(H) itself is
            wanted and `hessian.top` is measured at the same step, its run is used.
        max_iterations: most Hessian-vector products.

    Source: Cohen et al. 2021 (ICLR), §2 and Appendix B; Cohen et al. 2022 (adaptive methods), §2; what they
    leave out is derived in `stability_rules.py` from the characteristic polynomial.
    """

    name: ClassVar = "stability"
    title: ClassVar = "Stability"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How near the step is to the edge where it starts to bounce."
    formula: ClassVar = r"\lambda_1 \,/\, \lambda^*(\eta, \beta)"
    undefined: ClassVar = (
        "no linear recursion (LBFGS, Rprop, Muon, Adafactor) or an optimiser that is not torch's; a learning rate "
        "of 0; for adaptive optimisers before their first step"
    )
    source: ClassVar = _COHEN
    needs: ClassVar = Needs.HVP | Needs.OPTIMIZER_STATE
    tier: ClassVar = Tier.DEFAULT
    interval: ClassVar = 100
    scale: ClassVar = Scale.LOG
    parts: ClassVar = {
        "threshold": Part(
            "Stability threshold", "The sharpness above which the optimiser's steps diverge on a quadratic.",
            unit="loss / weight²", formula=r"2(1+\beta)/\eta,\ (2+2\beta_1)/((1-\beta_1)\eta), \dots",
        ),
        "sharpness": Part(
            "Sharpness as the optimiser sees it", "The λ1 that is compared: of H, or of P⁻¹H for adaptive optimisers.",
            unit="loss / weight²", formula=r"\lambda_1(P^{-1} H)",
        ),
        "ratio": Part(
            "Sharpness over threshold", "1 is the edge of stability.", unit="1",
            references=(ReferenceLine("edge of stability", 1.0, _COHEN),),
        ),
    }  # fmt: skip

    tol: float = 1e-4
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if not self.tol > 0 or self.max_iterations < 1:
            raise ValueError(
                f"expected tol > 0 and max_iterations ≥ 1, got tol={self.tol}, max_iterations={self.max_iterations} "
                "in options of 'stability'; raise them"
            )

    def measure(self, snapshot: Snapshot) -> Mapping[str, Reading]:
        """Return threshold, sharpness and their ratio; the threshold is there when only P is missing."""
        rule = stability_rule(snapshot.optimizer)
        threshold = Reading(rule.threshold, details=rule.words)
        try:
            sharpness = self._sharpness(snapshot, rule)
        except Missing as reason:
            absent = Reading.absent(str(reason))
            return {"threshold": threshold, "sharpness": absent, "ratio": absent}
        ratio = Reading(
            sharpness.value / rule.threshold, sharpness.error / rule.threshold, sharpness.converged,
            details=rule.words,
        )  # fmt: skip
        return {"threshold": threshold, "sharpness": sharpness, "ratio": ratio}

    def _sharpness(self, snapshot: Snapshot, rule: StabilityRule) -> Reading:
        diagonal, shift = rule.diagonals(snapshot.optimizer, snapshot.parameters)
        top = snapshot.due(HessianTop.name)
        is_raw = rule.sign > 0 and bool((diagonal == 1).all() and (shift == shift[0]).all())
        # D = 1 and one penalty for all: λ1(H + wI) = λ1(H) + w, and λ1(H) is known if the top is due
        if is_raw and top is not None and top.engine == "native":
            found = snapshot.once(hessian_extremes)
            reading = _first(found.top, found.verified, 0, {**rule.words, "shared_with": HessianTop.name})
            return Reading(**{**vars(reading), "value": reading.value + float(shift[0])})
        with defined():
            found = lanczos(
                PreconditionedOperator(snapshot.hessian, diagonal, shift, rule.sign), 1, tol=self.tol,
                generator=snapshot.generator("stability.lanczos"), max_iterations=self.max_iterations,
            )  # fmt: skip
        return _first(found.top, found.verified, found.num_products, rule.words)


def _first(pairs: Eigenpairs, verified: bool, num_products: int, details: Mapping[str, Any]) -> Reading:
    return Reading(
        float(pairs.values[0]), float(pairs.errors[0]), bool(pairs.converged[0] and verified), hvps=num_products,
        details=details,
    )  # fmt: skip
