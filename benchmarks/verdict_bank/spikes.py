"""Isolated spikes from corrupted batches, and numbers that stop being finite, at known steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from verdict_bank.data import blobs, digits, markov
from verdict_bank.models import Transformer, cnn, mlp
from verdict_bank.setting import (
    FOR_REPORT,
    FOR_THRESHOLDS,
    Batch,
    Training,
    adamw,
    always,
    faulty,
    look_alike,
    of,
    sgd,
)


def corrupted(*at: int, by: float) -> Callable[[Batch, int], Batch]:
    """Return an augmentation that scales the inputs of the batches at these steps, and from 2 on deals labels anew."""

    def corrupt(batch: Batch, step: int) -> Batch:
        if step not in at:
            return batch
        if by < 2:  # brighter, and nothing else: no fault
            return by * batch[0], batch[1]
        order = torch.randperm(len(batch[1]), generator=torch.Generator().manual_seed(step))
        return by * batch[0], batch[1][order]

    return corrupt


def poisoned(step: int) -> Callable[[int, Training], None]:
    """Return a change that writes one infinite weight at a step, as an overflow does."""

    def poison(now: int, made: Training) -> None:
        if now == step:
            with torch.no_grad():
                next(made.model.parameters()).view(-1)[0] = float("inf")

    return poison


def _exploding(seed: int, width: int, lr: float) -> Training:
    """Return a deep linear net whose weights explode within a few steps."""
    data = digits(600, seed)
    return of(
        mlp(64, width, width, width, 10, activation=nn.Identity),
        data,
        lambda m: sgd(m, lr),
        200,
        loss=lambda o, y: (o - nn.functional.one_hot(y, 10)).square().sum(1).mean(),
        label=always("non_finite", (0, 60)),
    )


SETTINGS = [
    faulty(
        "spikes-mlp",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(64, 128, 10),
            digits(1000, s),
            lambda m: sgd(m, 0.05, 0.9, 5e-4),
            900,
            augment=corrupted(400, 650, by=15),
            every={"light": 3},
            label=always("loss_spikes", (395, 412)),
        ),
        0,
        1,
    ),
    faulty(
        "spikes-mixture",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(20, 64, 64, 4),
            blobs(4, 20, 2000, s, distance=4),
            lambda m: adamw(m, 3e-3),
            700,
            augment=corrupted(300, 301, 302, 500, by=30),
            every={"light": 3},
            label=always("loss_spikes", (295, 312)),
        ),
    ),
    faulty(
        "spikes-cnn",
        FOR_REPORT,
        lambda s: of(
            cnn((6, 12), 32, norm=False),
            digits(900, s, as_images=True),
            lambda m: sgd(m, 0.03, 0.9),
            400,
            augment=corrupted(220, 320, by=8),
            every={"light": 2},
            label=always("loss_spikes", (216, 228)),
        ),
        10,
    ),
    faulty(
        "spikes-mlp-deep",
        FOR_REPORT,
        lambda s: of(
            mlp(16, 80, 80, 80, 5, activation=nn.GELU),
            blobs(5, 16, 3000, s, distance=4),
            lambda m: sgd(m, 0.03, 0.9),
            800,
            augment=corrupted(450, 620, by=12),
            every={"light": 3},
            label=always("loss_spikes", (445, 462)),
        ),
        10,
    ),
    faulty(
        "poisoned-mlp",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(64, 64, 10),
            digits(800, s),
            lambda m: adamw(m, 1e-3),
            300,
            before_step=poisoned(170),
            label=always("non_finite", (168, 180)),
        ),
    ),
    faulty("exploding-linear", FOR_THRESHOLDS, lambda s: _exploding(s, 64, 0.5)),
    faulty(
        "poisoned-transformer",
        FOR_REPORT,
        lambda s: of(
            Transformer(10, 10, 24, 2, 1),
            markov(10, 10, 600, s),
            lambda m: adamw(m, 2e-3),
            200,
            batch_size=32,
            num_probe=48,
            before_step=poisoned(120),
            label=always("non_finite", (118, 128)),
        ),
        10,
    ),
    faulty("exploding-linear-wide", FOR_REPORT, lambda s: _exploding(s, 150, 0.4), 10),
    look_alike(
        "one-corrupted-mild",
        FOR_THRESHOLDS,  # a batch half as bright again is nothing
        lambda s: of(
            mlp(64, 100, 10),
            digits(1000, s),
            lambda m: sgd(m, 0.05, 0.9, 1e-3),
            600,
            augment=corrupted(350, by=1.5),
            every={"light": 3},
        ),
        quiet="loss_spikes non_finite",
    ),
    look_alike(
        "rate-drop-no-spike",
        FOR_REPORT,
        lambda s: of(
            mlp(16, 64, 4),
            blobs(4, 16, 3000, s, distance=3),
            lambda m: sgd(m, 0.2, 0.5),
            600,
            batch_size=8,
            lr_factor=lambda t: 0.1 if t >= 350 else 1.0,
            every={"light": 3},
        ),
        10,
        quiet="loss_spikes non_finite",
    ),
]
