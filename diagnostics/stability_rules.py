"""At which sharpness each of torch's optimisers starts to bounce: thresholds, preconditioners, weight decay.

On a quadratic with gradient H θ, and with the second moments held fixed, an optimiser is a linear recursion.
Its z-transform reads, for every parameter of a group with rate η,

    (z − 1 + ηw) P/(η F(z)) θ + (H + W) θ = 0,

F the filter that its momentum puts on the gradients, P the diagonal that it divides by, W the weight of a
coupled (L2) penalty and w that of decoupled decay. The recursion diverges once a root leaves the unit circle.
For every filter below Im[(z − 1 + ηw)/F(z)] has the sign of Im z on the circle, so whatever H, P and the
groups' settings are, no root leaves at another place than z = 1 (no curvature) and z = −1 (too much). At
z = −1 that is the symmetric problem

    λ1(D (H + W)) = 1,   D = P⁻¹ η F(−1)/(2 − ηw)  on the parameters of each group,

so one number holds for groups with unlike rates, momenta and decay too. τ = 2/F(−1) is called the factor: with
one group, P = 1 and w = 0, the threshold is τ/η.

F(−1) is 1 for gradient descent, 1/(1+β) for heavy ball, (1+2β)/(1+β) for Nesterov, (1−β₁)/(1+β₁) for Adam.
Sources: Cohen et al. 2021, App. B (gradient descent, heavy ball, Nesterov); Cohen et al. 2022, §2 (Adam,
RMSprop). The others, several groups and decoupled decay are derived here, as above; tests/diagnostics/
test_stability_rules.py runs torch's own optimisers on both sides of every threshold.

P trainable parameters; η learning rate, β momentum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainvitals.diagnostics.base import Missing, OptimizerView, ParameterGroup

Options = Mapping[str, Any]  # hyperparameters of a group
State = Mapping[str, Any]  # of one parameter
NOT_MOVED = math.inf  # P of a parameter without state: it stays where it is

WITHOUT_THRESHOLD = {
    "LBFGS": "LBFGS scales each step by its own estimate of the curvature: no sharpness is too large for it",
    "Rprop": "Rprop steps by the gradient's sign: its step does not grow with the curvature, so none is too large",
    "Muon": "Muon orthogonalises its update: its step does not grow with the curvature, so none is too large",
    "Adafactor": "Adafactor clips its update by its size and scales it by that of the weights: not linear in the "
    "gradient, so a quadratic gives no threshold",
}


@dataclass(frozen=True)
class StabilityRule:
    """What an optimiser's settings say: the threshold, and how to scale the Hessian for it."""

    threshold: float  # of the group with the lowest
    sign: int  # −1 with maximize=True: the loss that is brought down is −L
    limits: tuple[float, ...]  # threshold of each group by itself, infinite if it does not move
    preconditioner: Callable[[Options, State], Tensor | float]
    words: Mapping[str, Any]

    def diagonals(self, optimizer: OptimizerView, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return D, scaled so that λ1(D (H + W)) reaches `threshold` at the edge, and W; (P,), float64, CPU.

        Parameters that the optimiser does not move (in no group, or without state) have D = 0.

        Raises:
            Missing: if an adaptive optimiser has no state yet, or P is zero somewhere.
        """
        D = {name: torch.zeros(p.numel(), dtype=torch.float64) for name, p in parameters.items()}
        W = {name: torch.zeros(p.numel(), dtype=torch.float64) for name, p in parameters.items()}
        for group, limit in zip(optimizer.groups, self.limits, strict=True):
            for name in (n for n in group.names if n in parameters):
                D[name] += self.threshold / limit / self.preconditioner(group.options, optimizer.state.get(name, {}))
                W[name] += _coupled(group.options, optimizer.kind)
        diagonal, shift = torch.cat(list(D.values())), torch.cat(list(W.values()))
        if not bool(diagonal.isfinite().all()):
            raise Missing("the preconditioner is zero for some parameters (no gradient so far and eps=0)")
        if not bool(diagonal.any()):
            raise Missing(f"{optimizer.kind} has no second moments yet: they exist after its first step")
        return diagonal, shift


def stability_rule(optimizer: OptimizerView) -> StabilityRule:
    """Return the stability rule of an optimiser, from its settings as they stand (schedulers write them).

    Raises:
        Missing: if there is no threshold for it, with the reason.
    """
    groups, kind = optimizer.groups, optimizer.kind
    if kind in WITHOUT_THRESHOLD:
        raise Missing(WITHOUT_THRESHOLD[kind])
    if kind not in _RULES:
        raise Missing(f"no stability threshold is known for {kind}; there is one for {', '.join(_RULES)} of torch")
    if len({bool(g.options.get("maximize", False)) for g in groups}) > 1:
        raise Missing("some groups climb the loss and some go down: the steps of such a game are no descent on it")
    factor, preconditioner = _RULES[kind]
    limits = tuple(_limit(factor, g.options, kind) for g in groups)
    lowest = min(range(len(groups)), key=limits.__getitem__, default=None)
    if lowest is None or limits[lowest] == math.inf:
        raise Missing(_no_limit(groups))
    sign = -1 if groups[lowest].options.get("maximize", False) else 1
    words = {
        "rule": factor(groups[lowest].options)[1],
        "learning_rate": float(groups[lowest].options["lr"]),
        "weight_decay": _decay_in_words(groups, kind),
    }
    if len(set(limits)) > 1:
        words["groups"] = "groups differ: the threshold is the lowest of them, and H is scaled for each of the others"
    if sign < 0:
        words["maximize"] = "the sharpness is that of −L, which is what goes down"
    return StabilityRule(limits[lowest], sign, limits, preconditioner, words)


def _limit(factor: Factor, options: Options, kind: str) -> float:
    """Return (τ/η)(1 − ηw/2), the threshold of a group by itself."""
    rate = float(options["lr"])
    if not rate > 0:
        return math.inf
    decay = rate * float(options.get("weight_decay", 0.0)) if _is_decoupled(options, kind) else 0.0
    if decay >= 2:
        raise Missing(f"decoupled weight decay alone diverges: learning rate × weight decay is {decay:g}, 2 or more")
    return factor(options)[0] / rate * (1 - decay / 2)


def _no_limit(groups: Sequence[ParameterGroup]) -> str:
    if not any(float(g.options["lr"]) > 0 for g in groups):
        return "the learning rate is 0: no step is too large"
    return "dampening=1 keeps every gradient but the first out of the momentum: no step is too large"


def _is_decoupled(options: Options, kind: str) -> bool:
    return kind == "AdamW" or bool(options.get("decoupled_weight_decay", False))


def _coupled(options: Options, kind: str) -> float:
    """Return the weight that is added to H. ASGD's `lambd` shrinks the weights at its rate, as a penalty does."""
    decay = 0.0 if _is_decoupled(options, kind) else float(options.get("weight_decay", 0.0))
    return decay + (float(options["lambd"]) if kind == "ASGD" else 0.0)


def _decay_in_words(groups: Sequence[ParameterGroup], kind: str) -> str:
    found = set()
    for options in (g.options for g in groups):
        if _is_decoupled(options, kind) and (decay := float(options.get("weight_decay", 0.0))):
            found.add(f"{decay:g} decoupled, not in H: the threshold is lower by the factor 1 − ηw/2")
        elif coupled := _coupled(options, kind):
            found.add(f"{coupled:g} coupled (L2), added to H")
    return "; ".join(sorted(found)) or "none"


# Factors: (τ, the rule in words), from a group's settings ---------------------------------------------

Factor = Callable[[Options], tuple[float, str]]


def sgd_factor(options: Options) -> tuple[float, str]:
    """Return 2, 2(1+β)/(1−d) or 2(1+β)/(1+2β). Dampening d scales the momentum: heavy ball at the rate (1 − d)η."""
    beta, d = float(options.get("momentum", 0.0)), float(options.get("dampening", 0.0))
    if not beta:
        return 2.0, "SGD: 2/η"
    if options.get("nesterov", False):
        return 2 * (1 + beta) / (1 + 2 * beta), f"Nesterov: 2(1+β)/((1+2β)η), β = {beta}"
    if d >= 1:
        return math.inf, "dampening=1"
    if d:
        return 2 * (1 + beta) / (1 - d), f"heavy ball with dampening: 2(1+β)/((1−d)η), β = {beta}, d = {d}"
    return 2 * (1 + beta), f"heavy ball: 2(1+β)/η, β = {beta}"


def adam_factor(options: Options) -> tuple[float, str]:
    """Return (2+2β₁)/(1−β₁)."""
    beta = float(options["betas"][0])
    return (2 + 2 * beta) / (1 - beta), f"(2+2β₁)/((1−β₁)η) against P⁻¹H, β₁ = {beta}"


def nadam_factor(options: Options) -> tuple[float, str]:
    """Return 2(1+β₁)/((1−β₁)(1+2β₁)), of late steps: `nadam_preconditioner` says how it comes there."""
    beta = float(options["betas"][0])
    words = f"NAdam: 2(1+β₁)/((1−β₁)(1+2β₁)η) against P⁻¹H, β₁ = {beta}"
    return 2 * (1 + beta) / ((1 - beta) * (1 + 2 * beta)), words


def momentum_factor(options: Options) -> tuple[float, str]:
    """Return 2(1+β): RMSprop's momentum is of the heavy-ball kind."""
    beta = float(options.get("momentum", 0.0))
    return 2 * (1 + beta), f"2(1+β)/η against P⁻¹H, β = {beta}"


def plain_factor(options: Options) -> tuple[float, str]:
    """Return 2: no momentum."""
    return 2.0, "2/η against P⁻¹H"


# Preconditioners: P (numel,), what the optimiser divides η times its momentum by -----------------------


def no_preconditioner(options: Options, state: State) -> float:
    """Return 1."""
    return 1.0


def adam_preconditioner(options: Options, state: State) -> Tensor | float:
    """Return P = (1−β₁ᵗ)(√(v/(1−β₂ᵗ)) + ε): torch divides by it, with ε outside the root.

    v is the largest so far with amsgrad. Source: Cohen et al. 2022, §2, with both bias corrections.
    """
    if "exp_avg_sq" not in state:
        return NOT_MOVED
    (beta1, beta2), step = _betas(options), float(state["step"])
    v = state["max_exp_avg_sq"] if options.get("amsgrad", False) else state["exp_avg_sq"]
    return (1 - beta1**step) * ((_flat(v) / (1 - beta2**step)).sqrt() + float(options["eps"]))


def sparse_adam_preconditioner(options: Options, state: State) -> Tensor | float:
    """Return P = (1−β₁ᵗ)(√v + ε)/√(1−β₂ᵗ). Rows without a gradient stay in place: it is for those that have one."""
    if "exp_avg_sq" not in state:
        return NOT_MOVED
    (beta1, beta2), step = _betas(options), float(state["step"])
    return (1 - beta1**step) * (_flat(state["exp_avg_sq"]).sqrt() + float(options["eps"])) / math.sqrt(1 - beta2**step)


def nadam_preconditioner(options: Options, state: State) -> Tensor | float:
    """Return Adam's √(v/(1−β₂ᵗ)) + ε times F_∞(−1)/F_t(−1).

    F_t(−1) = a + b(1−β₁)/(1+β₁), a = (1−μ_t)/(1−Πμ), b = μ_{t+1}/(1−Πμ μ_{t+1}): what the gradient and the
    momentum weigh at step t, which change for thousands of steps (μ_t goes from β₁/2 to β₁).
    """
    if "exp_avg_sq" not in state:
        return NOT_MOVED
    (beta1, beta2), step = _betas(options), float(state["step"])
    now, after = (beta1 * (1 - 0.5 * 0.96 ** (t * float(options["momentum_decay"]))) for t in (step, step + 1))
    product = float(state["mu_product"])
    gain = (1 - now) / (1 - product) + after / (1 - product * after) * (1 - beta1) / (1 + beta1)
    root = (_flat(state["exp_avg_sq"]) / (1 - beta2**step)).sqrt()
    return (root + float(options["eps"])) * (2 / nadam_factor(options)[0] / gain)


def radam_preconditioner(options: Options, state: State) -> Tensor | float:
    """Return (1−β₁ᵗ)(√v + ε)/(r_t √(1−β₂ᵗ)), r_t the rectification; (1−β₁ᵗ) while ρ_t ≤ 5 (no second moments)."""
    if "exp_avg_sq" not in state:
        return NOT_MOVED
    (beta1, beta2), step = _betas(options), float(state["step"])
    unbias, limit = 1 - beta2**step, 2 / (1 - beta2) - 1
    length = limit - 2 * step * beta2**step / unbias  # ρ_t
    if length <= 5:
        return 1 - beta1**step
    rectification = ((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)) ** 0.5
    root = _flat(state["exp_avg_sq"]).sqrt() + float(options["eps"])
    return (1 - beta1**step) * root / (rectification * math.sqrt(unbias))


def adamax_preconditioner(options: Options, state: State) -> Tensor | float:
    """Return P = (1−β₁ᵗ) u, u the decayed maximum of |g| + ε."""
    if "exp_inf" not in state:
        return NOT_MOVED
    return (1 - _betas(options)[0] ** float(state["step"])) * _flat(state["exp_inf"])


def rmsprop_preconditioner(options: Options, state: State) -> Tensor | float:
    """Return P = √v + ε, v the variance rather than the second moment if centered."""
    if "square_avg" not in state:
        return NOT_MOVED
    v = _flat(state["square_avg"])
    if options.get("centered", False):
        v = (v - _flat(state["grad_avg"]) ** 2).clamp_min(0.0)  # rounding can put it below zero
    return v.sqrt() + float(options["eps"])


def adagrad_preconditioner(options: Options, state: State) -> Tensor | float:
    """Return P = (1 + (t−1)·lr_decay)(√s + ε), s the sum of squared gradients."""
    if "sum" not in state or float(state["step"]) < 1:  # the state exists before the first step
        return NOT_MOVED
    slowed = 1 + (float(state["step"]) - 1) * float(options.get("lr_decay", 0.0))
    return slowed * (_flat(state["sum"]).sqrt() + float(options["eps"]))


def adadelta_preconditioner(options: Options, state: State) -> Tensor | float:
    """Return P = √(v + ε)/√(u + ε), u the mean of squared updates, as the next step takes it."""
    if "square_avg" not in state:
        return NOT_MOVED
    eps = float(options["eps"])
    return ((_flat(state["square_avg"]) + eps) / (_flat(state["acc_delta"]) + eps)).sqrt()


def asgd_preconditioner(options: Options, state: State) -> float:
    """Return η/η_t: the rate of the next step, which ASGD lowers, is in its state."""
    return float(options["lr"]) / float(state["eta"]) if "eta" in state else 1.0


_RULES: dict[str, tuple[Factor, Callable[[Options, State], Tensor | float]]] = {
    "SGD": (sgd_factor, no_preconditioner),
    "ASGD": (plain_factor, asgd_preconditioner),
    "Adam": (adam_factor, adam_preconditioner),
    "AdamW": (adam_factor, adam_preconditioner),
    "SparseAdam": (adam_factor, sparse_adam_preconditioner),
    "NAdam": (nadam_factor, nadam_preconditioner),
    "RAdam": (adam_factor, radam_preconditioner),
    "Adamax": (adam_factor, adamax_preconditioner),
    "RMSprop": (momentum_factor, rmsprop_preconditioner),
    "Adagrad": (plain_factor, adagrad_preconditioner),
    "Adadelta": (plain_factor, adadelta_preconditioner),
}


def _betas(options: Options) -> tuple[float, float]:
    one, two = options["betas"]
    return float(one), float(two)


def _flat(state: Tensor) -> Tensor:
    return state.detach().double().cpu().reshape(-1)
