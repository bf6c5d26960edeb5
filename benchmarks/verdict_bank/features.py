"""Neural collapse (informational) and features that lose rank without its geometry."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from verdict_bank.data import Split, blobs, digits
from verdict_bank.models import mlp
from verdict_bank.setting import (
    FIRED,
    FOR_REPORT,
    FOR_THRESHOLDS,
    Batch,
    Expected,
    Labels,
    Training,
    Truth,
    adamw,
    faulty,
    look_alike,
    of,
    sgd,
)
from verdict_bank.truths import slack


def features_of(model: nn.Sequential, x: Tensor) -> Tensor:
    """Return what the classifier sees, (N, D)."""
    for layer in list(model)[:-1]:
        x = layer(x)
    return x


def within_over_between(model: nn.Sequential, batch: Batch) -> float:
    """Return tr Σ_W / tr Σ_B of the features, by NumPy."""
    h, y = features_of(model, batch[0]).detach().double().numpy(), batch[1].numpy()
    means = np.stack([h[y == c].mean(0) for c in np.unique(y)])
    within = np.mean([(h[y == c] - m).__pow__(2).sum(1).mean() for c, m in zip(np.unique(y), means, strict=True)])
    return float(within / max(((means - means.mean(0)) ** 2).sum(1).mean(), 1e-30))


def participation(model: nn.Sequential, x: Tensor) -> float:
    """Return (Σλ)²/Σλ² of the features' covariance, by NumPy."""
    h = features_of(model, x).detach().double().numpy()
    eigenvalues = np.linalg.svd(h - h.mean(0), compute_uv=False) ** 2
    return float(eigenvalues.sum() ** 2 / max((eigenvalues**2).sum(), 1e-300))


def _collapsing(seed: int, model: nn.Sequential, data: Split, optimizer, num_steps: int, **more) -> Training:
    """Return a training to the terminal phase: the window opens when the train error is 0, and closes with 5 % left."""

    def label(truth: Truth) -> Labels:
        fitted = truth["train_accuracy"] >= 0.9999
        ratio = truth["spread"]
        if not fitted.any() or not ratio[-1] < 0.1:
            return {}
        first = int(truth.steps[int(fitted.argmax())])
        return {"neural_collapse": Expected(FIRED, (max(0, first - slack(truth)), int(0.95 * truth.steps[-1])))}

    part = (data.train[0][:256], data.train[1][:256])
    return of(
        model,
        data,
        optimizer,
        num_steps,
        label=label,
        dense_every=20,
        facts=lambda m: {"spread": within_over_between(m, part)},
        **more,
    )


def _flattened(
    data: Split, model: nn.Sequential, optimizer, num_steps: int, at: int, strength: float, **more
) -> Training:
    """Return a training in which a penalty on the variance of the features sets in at a step and flattens them."""
    now = {"step": 0}

    def loss(batch: Batch) -> Tensor:
        h = features_of(model, batch[0])
        fit = nn.functional.cross_entropy(model[-1](h), batch[1])
        now["step"] += 1
        return fit + strength * h.var(0).sum() if now["step"] > at else fit

    def label(truth: Truth) -> Labels:
        rank, steps = truth["participation"], truth.steps
        before = float(np.median(rank[(steps > at // 2) & (steps <= at)]))
        if not np.median(rank[-5:]) < 0.6 * before and not truth["train_accuracy"][-1] < 0.6:
            return {}
        return {"representation_collapse": Expected(FIRED, (at - slack(truth), at + round(0.15 * num_steps)))}

    return of(
        model,
        data,
        optimizer,
        num_steps,
        step_loss=loss,
        label=label,
        facts=lambda m: {"participation": participation(m, data.train[0][:256])},
        **more,
    )


def _aligned_views(seed: int, model: nn.Sequential, num: int, lr: float, steps: int) -> Training:
    """Return two noisy views pulled together with nothing that pushes apart: the features collapse from the start."""
    data = digits(num, seed)
    g = torch.Generator().manual_seed(seed)

    def loss(batch: Batch) -> Tensor:
        a, b = (features_of(model, batch[0] + 0.2 * torch.randn(batch[0].shape, generator=g)) for _ in range(2))
        return (a - b).square().sum(1).mean() + 1e-3 * nn.functional.cross_entropy(model[-1](a), batch[1])

    def label(truth: Truth) -> Labels:
        return {"representation_collapse": Expected(FIRED, (0, round(0.5 * steps)))}

    return of(
        model,
        data,
        lambda m: adamw(m, lr),
        steps,
        step_loss=loss,
        label=label,
        facts=lambda m: {"participation": participation(m, data.train[0][:256])},
    )


SETTINGS = [
    faulty(
        "collapse-mixture",
        FOR_THRESHOLDS,
        lambda s: _collapsing(
            s,
            mlp(20, 128, 64, 4),
            blobs(4, 20, 400, s, distance=6),
            lambda m: sgd(m, 0.1, 0.9, 5e-4),
            2500,
            batch_size=None,
        ),
        0,
        1,
    ),
    faulty(
        "collapse-mixture-six",
        FOR_REPORT,
        lambda s: _collapsing(
            s,
            mlp(24, 96, 96, 48, 6),
            blobs(6, 24, 480, s, distance=7),
            lambda m: sgd(m, 0.08, 0.9, 8e-4),
            2500,
            batch_size=None,
        ),
        10,
    ),
    faulty(
        "collapse-digits",
        FOR_REPORT,
        lambda s: _collapsing(
            s, mlp(64, 128, 64, 10), digits(500, s), lambda m: sgd(m, 0.1, 0.9, 1e-3), 2000, batch_size=250
        ),
        10,
    ),
    faulty(
        "flattened-digits",
        FOR_THRESHOLDS,
        lambda s: _flattened(digits(900, s), mlp(64, 128, 64, 10), lambda m: adamw(m, 1e-3), 700, 300, 1.0),
        0,
        1,
    ),
    faulty("views-digits", FOR_THRESHOLDS, lambda s: _aligned_views(s, mlp(64, 100, 40, 10), 800, 2e-3, 600)),
    faulty(
        "flattened-mixture",
        FOR_REPORT,
        lambda s: _flattened(
            blobs(6, 20, 1500, s, distance=5),
            mlp(20, 80, 80, 40, 6, activation=nn.GELU),
            lambda m: sgd(m, 0.03, 0.5),
            600,
            250,
            0.5,
        ),
        10,
    ),
    faulty(
        "views-deep",
        FOR_REPORT,
        lambda s: _aligned_views(s, mlp(64, 96, 96, 32, 10, activation=nn.Tanh), 900, 2e-3, 600),
        10,
    ),
    look_alike(
        "bottleneck",
        FOR_THRESHOLDS,  # few features by design, and they tell the classes apart
        lambda s: of(mlp(64, 64, 5, 10), digits(1000, s), lambda m: adamw(m, 2e-3), 700),
        quiet="representation_collapse",
    ),
    look_alike(
        "collapsed-well",
        FOR_THRESHOLDS,  # rank falls to C − 1 as neural collapse has it
        lambda s: of(
            mlp(20, 128, 64, 3),
            blobs(3, 20, 450, s, distance=7),
            lambda m: sgd(m, 0.1, 0.9, 1e-3),
            1500,
            batch_size=None,
        ),
        quiet="representation_collapse",
    ),
    look_alike(
        "bottleneck-tanh",
        FOR_REPORT,
        lambda s: of(
            mlp(24, 64, 4, 6, activation=nn.Tanh), blobs(6, 24, 2000, s, distance=6), lambda m: sgd(m, 0.05, 0.9), 600
        ),
        10,
        quiet="representation_collapse",
    ),
    look_alike(
        "collapsed-well-deep",
        FOR_REPORT,
        lambda s: of(
            mlp(16, 64, 64, 4), blobs(4, 16, 400, s, distance=7), lambda m: adamw(m, 2e-3, 0.05), 1500, batch_size=100
        ),
        10,
        quiet="representation_collapse",
    ),
]
