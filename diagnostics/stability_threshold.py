"""The edge of stability: the sharpness at which the optimiser starts to bounce, and how near it is.

P trainable parameters; η learning rate, β momentum, λ an eigenvalue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Diagnostic, Missing, Needs, OptimizerView, ParameterGroup, Part, Snapshot, Tier
from trainvitals.diagnostics.hessian_spectrum import HessianTop, defined, hessian_extremes
from trainvitals.diagnostics.linalg.lanczos import Eigenpairs, lanczos
from trainvitals.diagnostics.linalg.preconditioned import PreconditionedOperator
from trainvitals.schema import Question, Reading, ReferenceLine, Scale

_COHEN = "Cohen et al. 2021, §2 and App. B; Cohen et al. 2022, §2"


@dataclass
class Stability(Diagnostic):
    """Sharpness against the optimiser's stability threshold; a ratio of 1 is the edge of stability.

    On a quadratic, full-batch steps converge while the sharpness is below the threshold:

    - SGD: λ1(H) < 2/η; heavy ball: 2(1+β)/η; Nesterov: 2(1+β)/((1+2β)η).
    - Adam, AdamW: λ1(P⁻¹H) < (2+2β₁)/((1−β₁)η), P = (1−β₁ᵗ)(diag √v̂ + ε), held fixed; 38/η at β₁ = 0.9.
    - RMSprop: λ1(P⁻¹H) < 2(1+β)/η with P = diag √v + ε and β its momentum, of the heavy-ball kind.

    `sharpness` is the λ1 that is compared: raw for SGD, preconditioned for Adam and RMSprop. A coupled L2
    penalty (`weight_decay` of SGD, Adam, RMSprop) adds its weight to H on its parameters; decoupled decay
    (AdamW) does not. With a learning rate η_l per group the operator is scaled by η_l/η_max and the
    threshold is that at η_max. `details` says which of these entered.

    Args:
        tol: relative accuracy of λ1, by its estimated error (`hessian.top` says how). If λ1(H) itself is
            wanted and `hessian.top` is measured at the same step, its run is used.
        max_iterations: most Hessian-vector products.

    Source: Cohen et al. 2021 (ICLR), §2 and Appendix B; Cohen et al. 2022 (adaptive methods), §2.
    """

    name: ClassVar = "stability"
    title: ClassVar = "Stability"
    question: ClassVar = Question.SHARPNESS
    summary: ClassVar = "How near the step is to the edge where it starts to bounce."
    formula: ClassVar = r"\lambda_1 \,/\, \lambda^*(\eta, \beta)"
    undefined: ClassVar = (
        "no closed form: other optimisers than SGD, Adam, AdamW and RMSprop, unlike momenta in groups, "
        "maximize=True, a learning rate of 0; for Adam and RMSprop before their first step"
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
            "Sharpness as the optimiser sees it", "The λ1 that is compared: of H, or of P⁻¹H for Adam and RMSprop.",
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
        # D = 1 and one penalty for all: λ1(H + wI) = λ1(H) + w, and λ1(H) is known if the top is due
        if bool((diagonal == 1).all() and (shift == shift[0]).all()) and top is not None and top.engine == "native":
            found = snapshot.once(hessian_extremes)
            reading = _first(found.top, found.verified, 0, {**rule.words, "shared_with": HessianTop.name})
            return Reading(**{**vars(reading), "value": reading.value + float(shift[0])})
        with defined():
            found = lanczos(
                PreconditionedOperator(snapshot.hessian, diagonal, shift), 1, tol=self.tol,
                generator=snapshot.generator("stability.lanczos"), max_iterations=self.max_iterations,
            )  # fmt: skip
        return _first(found.top, found.verified, found.num_products, rule.words)


@dataclass(frozen=True)
class StabilityRule:
    """What an optimiser's settings say: the threshold, and how to scale the Hessian for it."""

    threshold: float
    learning_rate: float  # η_max over the groups
    preconditioner: Callable[[ParameterGroup, Mapping[str, Any]], Tensor | float]  # P of one parameter, from its state
    decoupled: tuple[bool, ...]  # per group, whether its weight decay stays out of H
    words: Mapping[str, Any]

    def diagonals(self, optimizer: OptimizerView, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return D = (η_l/η_max) P⁻¹ and the L2 penalty W, (P,) each, in float64 on the CPU.

        Parameters that the optimiser does not move (in no group, or without state) have D = 0.

        Raises:
            Missing: if an adaptive optimiser has no state yet, or P is zero somewhere.
        """
        D = {name: torch.zeros(p.numel(), dtype=torch.float64) for name, p in parameters.items()}
        W = {name: torch.zeros(p.numel(), dtype=torch.float64) for name, p in parameters.items()}
        for group, decoupled in zip(optimizer.groups, self.decoupled, strict=True):
            for name in (n for n in group.names if n in parameters):
                P = self.preconditioner(group, optimizer.state.get(name, {}))
                D[name] += float(group.options["lr"]) / self.learning_rate / P
                W[name] += 0.0 if decoupled else float(group.options.get("weight_decay", 0.0))
        diagonal, shift = torch.cat(list(D.values())), torch.cat(list(W.values()))
        if not bool(diagonal.isfinite().all()):
            raise Missing("the preconditioner is zero for some parameters (no gradient so far and eps=0)")
        if not bool(diagonal.any()):
            raise Missing(f"{optimizer.kind} has no second moments yet: they exist after its first step")
        return diagonal, shift


def stability_rule(optimizer: OptimizerView) -> StabilityRule:
    """Return the stability rule of an optimiser.

    Raises:
        Missing: if there is no closed form for it, with the reason.
    """
    if optimizer.kind not in _RULES:
        raise Missing(f"no stability threshold is known for {optimizer.kind}; there is one for {', '.join(_RULES)}")
    if any(g.options.get("maximize", False) for g in optimizer.groups):
        raise Missing("maximize=True climbs the loss: its curvature does not bound the step")
    rate = max((float(g.options["lr"]) for g in optimizer.groups), default=0.0)
    if not rate > 0:
        raise Missing("the learning rate is 0: no step is too large")
    factor, name, preconditioner = _RULES[optimizer.kind](optimizer.groups)
    decoupled = tuple(
        optimizer.kind == "AdamW" or bool(g.options.get("decoupled_weight_decay", False)) for g in optimizer.groups
    )
    words = {"rule": name, "learning_rate": rate, "weight_decay": _decay_in_words(optimizer.groups, decoupled)}
    if len({float(g.options["lr"]) for g in optimizer.groups}) > 1:
        words["learning_rates"] = "groups differ: H is scaled by η_l/η_max, the threshold is at η_max"
    return StabilityRule(factor / rate, rate, preconditioner, decoupled, words)


Rule = tuple[float, str, Callable[[ParameterGroup, Mapping[str, Any]], Tensor | float]]  # (threshold · η, words, P)


def _sgd(groups: Iterable[ParameterGroup]) -> Rule:
    beta, tau = _same(groups, "momentum", 0.0), _same(groups, "dampening", 0.0)

    def one(group: ParameterGroup, state: Mapping[str, Any]) -> float:
        return 1.0

    if not beta:
        return 2.0, "SGD: 2/η", one
    if _same(groups, "nesterov", False):
        return 2 * (1 + beta) / (1 + 2 * beta), f"Nesterov: 2(1+β)/((1+2β)η), β = {beta}", one
    if tau >= 1:
        raise Missing("dampening=1 keeps every gradient but the first out of the momentum: no step is too large")
    if tau:  # the momentum is (1 − τ) times that of heavy ball: the same path at the rate (1 − τ)η
        return 2 * (1 + beta) / (1 - tau), f"heavy ball with dampening: 2(1+β)/((1−τ)η), β = {beta}, τ = {tau}", one
    return 2 * (1 + beta), f"heavy ball: 2(1+β)/η, β = {beta}", one


def _adam(groups: Iterable[ParameterGroup]) -> Rule:
    beta = _same(groups, "betas", (0.9, 0.999), first=True)
    words = f"Adam: (2+2β₁)/((1−β₁)η) against P⁻¹H, β₁ = {beta}"
    return (2 + 2 * beta) / (1 - beta), words, adam_preconditioner


def _rmsprop(groups: Iterable[ParameterGroup]) -> Rule:
    beta = _same(groups, "momentum", 0.0)
    return 2 * (1 + beta), f"RMSprop: 2(1+β)/η against P⁻¹H, β = {beta}", rmsprop_preconditioner


_RULES: dict[str, Callable[[Iterable[ParameterGroup]], Rule]] = {
    "SGD": _sgd, "Adam": _adam, "AdamW": _adam, "RMSprop": _rmsprop,
}  # fmt: skip


def adam_preconditioner(group: ParameterGroup, state: Mapping[str, Any]) -> Tensor | float:
    """Return P = (1−β₁ᵗ)(√(v/(1−β₂ᵗ)) + ε), (numel,): torch divides by it, with ε outside the root.

    v is the largest so far with amsgrad. Without state the parameter does not move: P = ∞.
    Source: Cohen et al. 2022, §2, with both bias corrections.
    """
    if "exp_avg_sq" not in state:
        return float("inf")
    (beta1, beta2), step = (float(b) for b in group.options["betas"]), float(state["step"])
    v = state["max_exp_avg_sq"] if group.options.get("amsgrad", False) else state["exp_avg_sq"]
    root = (_flat(v) / (1 - beta2**step)).sqrt()
    return (1 - beta1**step) * (root + float(group.options["eps"]))


def rmsprop_preconditioner(group: ParameterGroup, state: Mapping[str, Any]) -> Tensor | float:
    """Return P = √v + ε, (numel,), v the variance rather than the second moment if centered."""
    if "square_avg" not in state:
        return float("inf")
    v = _flat(state["square_avg"])
    if group.options.get("centered", False):
        v = (v - _flat(state["grad_avg"]) ** 2).clamp_min(0.0)  # rounding can put it below zero
    return v.sqrt() + float(group.options["eps"])


def _flat(state: Tensor) -> Tensor:
    return state.detach().double().cpu().reshape(-1)


def _same(groups: Iterable[ParameterGroup], option: str, default: Any, first: bool = False) -> float:
    """Return the one value that an option has in all groups (booleans as 0 and 1), or the first entry of it."""
    found = (g.options.get(option, default) for g in groups)
    values = {float(value[0] if first else value) for value in found}
    if len(values) > 1:
        raise Missing(f"parameter groups differ in {option} ({sorted(values)}): no closed form")
    return values.pop()


def _decay_in_words(groups: Iterable[ParameterGroup], decoupled: tuple[bool, ...]) -> str:
    pairs = {(float(g.options.get("weight_decay", 0.0)), d) for g, d in zip(groups, decoupled, strict=True)}
    words = [f"{w:g} {'decoupled, not in H' if d else 'coupled (L2), added to H'}" for w, d in sorted(pairs) if w]
    return "; ".join(words) or "none"


def _first(pairs: Eigenpairs, verified: bool, num_products: int, details: Mapping[str, Any]) -> Reading:
    return Reading(
        float(pairs.values[0]), float(pairs.errors[0]), bool(pairs.converged[0] and verified), hvps=num_products,
        details=details,
    )  # fmt: skip
