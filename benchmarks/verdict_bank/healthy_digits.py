"""Digits, learned well: MLP, CNN, transformer; Adam, SGD, momentum; decay, warm-up, cosine, steps; few data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from verdict_bank.data import digits
from verdict_bank.models import RowTransformer, cnn, mlp
from verdict_bank.setting import FOR_REPORT, FOR_THRESHOLDS, Batch, adamw, cosine, drops, healthy, of, sgd


def _smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)


def _jitter(batch: Batch, step: int) -> Batch:
    """Return the digits moved by a pixel at most: data that never repeats exactly."""
    g = torch.Generator().manual_seed(step)
    dy, dx = torch.randint(-1, 2, (2,), generator=g).tolist()
    return torch.roll(batch[0].view(-1, 8, 8), (dy, dx), (1, 2)).reshape(batch[0].shape), batch[1]


SETTINGS = [
    healthy(
        "digits-mlp-adam",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 128, 10), digits(1000, s), lambda m: adamw(m, 1e-3), 500),
        0,
        1,
    ),
    healthy(
        "digits-mlp-momentum-decay",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 100, 100, 10), digits(900, s), lambda m: sgd(m, 0.02, 0.9, 2e-3), 700),
    ),
    healthy(
        "digits-cnn-cosine",
        FOR_THRESHOLDS,
        lambda s: of(
            cnn(), digits(800, s, as_images=True), lambda m: sgd(m, 0.05, 0.9, 5e-4), 240, lr_factor=cosine(240, 20)
        ),
    ),
    healthy(
        "digits-mlp-sgd-steps",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 64, 10), digits(1000, s), lambda m: sgd(m, 0.3), 800, lr_factor=drops(400, 600)),
    ),
    healthy(
        "digits-few-decay",
        FOR_THRESHOLDS,  # a large gap beside a flat held-out loss
        lambda s: of(mlp(64, 64, 10), digits(80, s), lambda m: sgd(m, 0.1, 0.9, 1e-2), 500, batch_size=20),
    ),
    healthy(
        "digits-dropout",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 256, 10, dropout=0.5), digits(900, s), lambda m: adamw(m, 1e-3), 700),
    ),
    healthy(
        "digits-small-rate",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 128, 10), digits(1000, s), lambda m: sgd(m, 0.02, 0.9), 900),
    ),
    healthy(
        "digits-layer-norm-gelu",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(64, 96, 96, 10, activation=nn.GELU, norm="layer"),
            digits(1000, s),
            lambda m: adamw(m, 1e-3, 0.1),
            400,
            lr_factor=cosine(400, 40),
        ),
    ),
    healthy(
        "digits-mlp-adam-wide",
        FOR_REPORT,
        lambda s: of(mlp(64, 300, 10), digits(1100, s), lambda m: adamw(m, 5e-4), 500, batch_size=50),
        10,
        11,
    ),
    healthy(
        "digits-batch-norm-momentum",
        FOR_REPORT,
        lambda s: of(mlp(64, 80, 80, 80, 10, norm="batch"), digits(1000, s), lambda m: sgd(m, 0.05, 0.9, 1e-3), 300),
    ),
    healthy(
        "digits-cnn-adam",
        FOR_REPORT,
        lambda s: of(cnn((6, 12), 24, norm=False), digits(1000, s, as_images=True), lambda m: adamw(m, 2e-3), 350),
    ),
    healthy(
        "digits-row-transformer",
        FOR_REPORT,
        lambda s: of(
            RowTransformer(32, 2, 2), digits(1000, s), lambda m: adamw(m, 2e-3, 0.05), 350, lr_factor=cosine(350, 40)
        ),
    ),
    healthy(
        "digits-few-decay-deep",
        FOR_REPORT,
        lambda s: of(
            mlp(64, 48, 48, 10, activation=nn.Tanh),
            digits(120, s),
            lambda m: sgd(m, 0.05, 0.9, 1e-2),
            600,
            batch_size=30,
        ),
    ),
    healthy(
        "digits-label-smoothing",
        FOR_REPORT,
        lambda s: of(mlp(64, 128, 64, 10), digits(1000, s), lambda m: sgd(m, 0.05, 0.9, 1e-3), 500, loss=_smoothed),
    ),
    healthy(
        "digits-jitter",
        FOR_REPORT,
        lambda s: of(mlp(64, 200, 100, 10), digits(900, s), lambda m: adamw(m, 1e-3), 800, augment=_jitter),
    ),
    healthy(
        "digits-large-rate",
        FOR_REPORT,
        lambda s: of(
            mlp(64, 64, 64, 10), digits(1000, s), lambda m: sgd(m, 0.5, 0.0, 1e-3), 500, clip=1.0, batch_size=100
        ),
    ),
    healthy(
        "digits-warm-up-steps",
        FOR_REPORT,
        lambda s: of(
            mlp(64, 150, 10, activation=nn.SiLU),
            digits(800, s),
            lambda m: sgd(m, 0.1, 0.9, 1e-3),
            600,
            batch_size=100,
            lr_factor=lambda t: min(1.0, (t + 1) / 60) * drops(300, 450)(t),
        ),
    ),
]
