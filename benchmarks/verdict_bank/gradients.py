"""Samples that pull against each other, and a feature that starves beside an easier one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from verdict_bank.data import Split, blobs, digits, generator
from verdict_bank.models import mlp
from verdict_bank.setting import (
    FIRED,
    FOR_REPORT,
    FOR_THRESHOLDS,
    Expected,
    Labels,
    Training,
    Truth,
    adamw,
    always,
    faulty,
    look_alike,
    of,
    sgd,
)
from verdict_bank.truths import slack


def _swapped(data: Split, seed: int) -> Split:
    """Return the split with classes 2k and 2k+1 exchanged on half of all samples: two tasks that contradict."""
    g = generator(seed + 70)

    def half(y: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.rand(len(y), generator=g) < 0.5, y ^ 1, y)

    parts = [(x, half(y)) for x, y in (data.train, data.heldout, data.test)]
    return Split(*parts, data.is_wrong)


def _contradicted(model: nn.Module, data: Split, optimizer, num_steps: int, seed: int, at: int = 0, **more) -> Training:
    """Return a training whose data contradicts itself: from the start, or from a step on."""
    clash = _swapped(data, seed)
    made = of(
        model,
        clash if not at else data,
        optimizer,
        num_steps,
        label=always("gradient_conflict", (max(0, at - num_steps // 50), at + num_steps // 4)),
        **more,
    )
    made.every = {"grad": num_steps // 25}
    if at:
        made.train = (data.train[0].clone(), data.train[1].clone())

        def switch(now: int, training: Training) -> None:
            if now == at:
                training.train[1].copy_(clash.train[1])  # in place: the probe sees it too
                training.heldout[1].copy_(clash.heldout[1])

        made.before_step = switch
    return made


def two_features(seed: int, strength: float, num: int = 400, second: float = 0.5) -> Split:
    """Return x₁ = s·y + noise and x₂ = 0.5·y + noise, y = ±1 as classes 0 and 1."""
    g = generator(seed)
    y = torch.arange(num + 1500) % 2
    sign = 2.0 * y - 1
    x = torch.stack([strength * sign, second * sign], 1) + 0.2 * torch.randn(len(y), 2, generator=g)
    return Split(
        (x[:num], y[:num]),
        (x[num : num + 300], y[num : num + 300]),
        (x[num + 300 :], y[num + 300 :]),
        torch.zeros(num, dtype=torch.bool),
    )


def alone(x: torch.Tensor, y: torch.Tensor, feature: int) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return a measure: accuracy when only one feature is left, the other at 0."""
    only = torch.zeros_like(x)
    only[:, feature] = x[:, feature]

    def measure(model: nn.Module) -> Mapping[str, float]:
        return {"alone": float((model(only).argmax(1) == y).double().mean())}

    return measure


def _starved(truth: Truth) -> Labels:
    """Expect `gradient_starvation` from when the train data is fitted to 98 %, if the weak feature alone then fails."""
    fitted = truth["train_accuracy"] >= 0.98
    if not fitted.any() or truth["alone"][-1] > 0.9:
        return {}
    first = int(truth.steps[int(fitted.argmax())])
    return {"gradient_starvation": Expected(FIRED, (0, max(first, truth.steps[-1] // 2) + slack(truth)))}


def _two(
    seed: int, strength: float, width: int, optimizer, steps: int, num: int = 400, label=_starved, **more
) -> Training:
    data = two_features(seed, strength, num)
    return of(
        mlp(2, width, 2),
        data,
        optimizer,
        steps,
        batch_size=None,
        label=label,
        probes={"default": {}, "feature.response": {"features": {"strong": 0, "weak": 1}}},
        facts=alone(*data.test, 1),
        **more,
    )


SETTINGS = [
    faulty(
        "conflict-digits",
        FOR_THRESHOLDS,
        lambda s: _contradicted(mlp(64, 64, 10), digits(1100, s), lambda m: sgd(m, 0.05, 0.9, 5e-3), 500, s),
        0,
        1,
    ),
    faulty(
        "conflict-mixture-later",
        FOR_THRESHOLDS,
        lambda s: _contradicted(
            mlp(20, 48, 6), blobs(6, 20, 2500, s, distance=5), lambda m: adamw(m, 1e-3, 0.05), 600, s, at=250
        ),
    ),
    faulty(
        "conflict-mixture",
        FOR_REPORT,
        lambda s: _contradicted(
            mlp(16, 40, 40, 8, activation=nn.Tanh),
            blobs(8, 16, 3000, s, distance=5),
            lambda m: adamw(m, 2e-3, 0.05),
            500,
            s,
        ),
        10,
    ),
    faulty(
        "conflict-digits-later",
        FOR_REPORT,
        lambda s: _contradicted(
            mlp(64, 48, 48, 10), digits(1200, s), lambda m: sgd(m, 0.03, 0.9, 5e-3), 700, s, at=300
        ),
        10,
    ),
    faulty("starved-4", FOR_THRESHOLDS, lambda s: _two(s, 4.0, 100, lambda m: sgd(m, 0.05), 1000), 0, 1),
    faulty("starved-adam", FOR_THRESHOLDS, lambda s: _two(s, 3.0, 64, lambda m: adamw(m, 2e-3), 500)),
    faulty("starved-wide", FOR_REPORT, lambda s: _two(s, 5.0, 200, lambda m: sgd(m, 0.1, 0.5), 700, 300), 10, 11),
    look_alike(
        "both-learned",
        FOR_THRESHOLDS,
        lambda s: _two(s, 0.5, 100, lambda m: sgd(m, 0.1), 800),
        quiet="gradient_starvation gradient_conflict",
    ),
    look_alike(
        "both-learned-wide",
        FOR_REPORT,
        lambda s: _two(s, 0.4, 150, lambda m: sgd(m, 0.1, 0.5), 800, 300),
        10,
        quiet="gradient_starvation gradient_conflict",
    ),
    look_alike(
        "two-classes-apart",
        FOR_THRESHOLDS,  # gradients of two classes always oppose; nothing is stuck
        lambda s: of(mlp(10, 32, 2), blobs(2, 10, 1500, s, distance=2.5), lambda m: sgd(m, 0.05, 0.9, 1e-3), 500),
        quiet="gradient_conflict class_neglect",
    ),
    look_alike(
        "two-classes-apart-deep",
        FOR_REPORT,
        lambda s: of(
            mlp(12, 32, 32, 2, activation=nn.GELU),
            blobs(2, 12, 2000, s, distance=2.0),
            lambda m: adamw(m, 1e-3, 0.05),
            500,
        ),
        10,
        quiet="gradient_conflict class_neglect",
    ),
]
