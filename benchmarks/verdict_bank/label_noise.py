"""Wrong labels that are memorised: the onset is read off the wrong labels themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from verdict_bank.data import Split, blobs, digits
from verdict_bank.models import cnn, mlp
from verdict_bank.setting import FOR_REPORT, FOR_THRESHOLDS, Training, adamw, faulty, look_alike, of, sgd
from verdict_bank.truths import after


def noisy(model: nn.Module, data: Split, optimizer, num_steps: int, **more) -> Training:
    """Return a training on wrong labels. Memorised: the share of them fitted rises from 15 % to 60 %."""

    def facts(trained: nn.Module) -> Mapping[str, float]:
        with torch.no_grad():
            fitted = trained(data.train[0]).argmax(1) == data.train[1]
        return {"flipped_fit": float(fitted[data.is_wrong].double().mean())}

    label = after("label_noise", "flipped_fit", 0.15, 0.6, also="overfitting")
    return of(model, data, optimizer, num_steps, facts=facts, label=label, **more)


SETTINGS = [
    faulty(
        "noise-mlp-adam",
        FOR_THRESHOLDS,
        lambda s: noisy(mlp(64, 256, 128, 10), digits(600, s, 0.4), lambda m: adamw(m, 2e-3), 900, batch_size=50),
        0,
        1,
    ),
    faulty(
        "noise-cnn",
        FOR_THRESHOLDS,
        lambda s: noisy(
            cnn((8, 16), 32), digits(500, s, 0.3, as_images=True), lambda m: sgd(m, 0.02, 0.9), 700, batch_size=32
        ),
    ),
    faulty(
        "noise-mixture",
        FOR_THRESHOLDS,
        lambda s: noisy(
            mlp(20, 200, 200, 5),
            blobs(5, 20, 500, s, distance=6, wrong_share=0.3),
            lambda m: adamw(m, 2e-3),
            600,
            batch_size=50,
        ),
    ),
    faulty(
        "noise-mlp-momentum",
        FOR_REPORT,
        lambda s: noisy(mlp(64, 200, 200, 10), digits(800, s, 0.5), lambda m: sgd(m, 0.05, 0.9), 1100, batch_size=50),
        10,
        11,
    ),
    faulty(
        "noise-cnn-adam",
        FOR_REPORT,
        lambda s: noisy(
            cnn((6, 12, 12), 48, norm=False),
            digits(450, s, 0.35, as_images=True),
            lambda m: adamw(m, 3e-3),
            600,
            batch_size=30,
        ),
        10,
    ),
    faulty(
        "noise-mixture-gelu",
        FOR_REPORT,
        lambda s: noisy(
            mlp(30, 150, 150, 4, activation=nn.GELU),
            blobs(4, 30, 600, s, distance=7, wrong_share=0.25),
            lambda m: sgd(m, 0.03, 0.9),
            1500,
            batch_size=40,
        ),
        10,
    ),
    look_alike(
        "hard-samples",
        FOR_THRESHOLDS,  # every label right, some samples hard: classes that overlap
        lambda s: of(
            mlp(20, 64, 4), blobs(4, 20, 2500, s, distance=2.5, parts=2), lambda m: sgd(m, 0.02, 0.9, 2e-3), 500
        ),
        quiet="label_noise overfitting gradient_conflict neural_collapse",
    ),
    look_alike(
        "noise-not-memorised",
        FOR_THRESHOLDS,  # wrong labels, and decay keeps them out
        lambda s: noisy(mlp(64, 256, 256, 10), digits(600, s, 0.15), lambda m: sgd(m, 0.05, 0.9, 2e-2), 900),
        quiet="overfitting underfitting gradient_conflict",
    ),
    look_alike(
        "hard-samples-deep",
        FOR_REPORT,
        lambda s: of(
            mlp(16, 48, 48, 3, norm="layer"),
            blobs(3, 16, 3000, s, distance=2.5, parts=3),
            lambda m: adamw(m, 1e-3, 0.1),
            500,
        ),
        10,
        quiet="label_noise overfitting gradient_conflict neural_collapse",
    ),
    look_alike(
        "noise-not-memorised-deep",
        FOR_REPORT,
        lambda s: noisy(
            mlp(64, 150, 150, 10), digits(700, s, 0.2), lambda m: sgd(m, 0.04, 0.9, 2e-2), 900, batch_size=70
        ),
        10,
        quiet="overfitting underfitting gradient_conflict",
    ),
]
