"""Single-step adversarial training that breaks (catastrophic overfitting), and the same within its reach."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from verdict_bank.data import digits
from verdict_bank.models import cnn, mlp
from verdict_bank.setting import (
    FIRED,
    FOR_REPORT,
    FOR_THRESHOLDS,
    Batch,
    Expected,
    Labels,
    Training,
    Truth,
    faulty,
    look_alike,
    of,
    sgd,
)
from verdict_bank.truths import slack, smooth


def attacked(model: nn.Module, batch: Batch, epsilon: float, num_steps: int = 1) -> Tensor:
    """Return the inputs after steps of the gradient's sign within the ε-box: FGSM for one step, PGD for more."""
    x, y = batch
    size = epsilon if num_steps == 1 else 2.5 * epsilon / num_steps
    delta = torch.zeros_like(x)
    for _ in range(num_steps):
        delta.requires_grad_(True)
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(model(x + delta), y)
            (g,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() + size * g.sign()).clamp(-epsilon, epsilon)
    return x + delta.detach()


def robust(
    model: nn.Module, num_train: int, epsilon: float, lr: float, steps: int, seed: int, as_images: bool, **more
) -> Training:
    """Return FGSM training; the truth is FGSM and PGD-10 accuracy, densely, on data that no probe holds."""
    data = digits(num_train, seed, as_images=as_images)
    part = (data.test[0][:200], data.test[1][:200])

    def facts(trained: nn.Module) -> dict[str, float]:
        def right(n: int) -> float:
            return float((trained(attacked(trained, part, epsilon, n)).argmax(1) == part[1]).double().mean())

        return {"fgsm": right(1), "pgd": right(10)}

    def label(truth: Truth) -> Labels:
        between = smooth(truth["fgsm"] - truth["pgd"], 5)
        if not np.median(between[-5:]) > 0.25:
            return {}
        low, high = int((between > 0.08).argmax()), int((between > 0.25).argmax())
        room = 2 * slack(truth)
        return {
            "catastrophic_overfitting": Expected(
                FIRED, (max(0, int(truth.steps[low]) - room), int(truth.steps[high]) + room)
            )
        }

    made = of(
        model,
        data,
        lambda m: sgd(m, lr, 0.9),
        steps,
        facts=facts,
        label=label,
        dense_every=max(5, steps // 60),
        probes={"default": {}, "adv": {"epsilon": epsilon}},
        every={"hessian": steps, "stability": steps},
        **more,
    )
    made.step_loss = lambda batch: nn.functional.cross_entropy(model(attacked(model, batch, epsilon)), batch[1])
    return made


SETTINGS = [
    faulty(
        "fgsm-cnn", FOR_THRESHOLDS, lambda s: robust(cnn((16, 16), 64, norm=False), 800, 0.3, 0.05, 700, s, True), 0, 1
    ),
    faulty("fgsm-mlp", FOR_REPORT, lambda s: robust(mlp(64, 160, 160, 10), 800, 0.35, 0.05, 800, s, False), 10, 11),
    look_alike(
        "fgsm-cnn-mild",
        FOR_THRESHOLDS,
        lambda s: robust(cnn((8, 12), 32, norm=False), 800, 0.1, 0.05, 400, s, True),
        quiet="catastrophic_overfitting",
    ),
    look_alike(
        "fgsm-mlp-mild",
        FOR_REPORT,
        lambda s: robust(mlp(64, 128, 10), 800, 0.08, 0.05, 500, s, False),
        10,
        quiet="catastrophic_overfitting",
    ),
]
