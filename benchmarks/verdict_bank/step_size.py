"""Steps too large, too small, and at the edge of stability, with the curvature measured by power iteration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import parameters_to_vector

from verdict_bank.data import blobs, digits, markov, regression
from verdict_bank.healthy_misleading import at_the_edge
from verdict_bank.models import Transformer, cnn, mlp, scaled
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
    always,
    faulty,
    look_alike,
    of,
    sgd,
)
from verdict_bank.truths import slack


def _kicked(step: int, by: float) -> Callable[[int], float]:
    return lambda t: by if t >= step else 1.0


def sharpness(made: Training, batch: Batch, num_products: int = 15) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return a measure of λmax·lr/2 by power iteration on the mean loss, started from the last eigenvector."""
    state: dict[str, torch.Tensor] = {}

    def measure(model: nn.Module) -> Mapping[str, float]:
        parameters = list(model.parameters())
        with torch.enable_grad():
            grads = torch.autograd.grad(made.loss(model(batch[0]), batch[1]), parameters, create_graph=True)
            flat = torch.cat([g.reshape(-1) for g in grads])
            v = state.get(
                "v", torch.randn(len(parameters_to_vector(parameters)), generator=torch.Generator().manual_seed(3))
            )
            for _ in range(num_products):
                v = v / v.norm()
                hv = torch.autograd.grad(flat @ v, parameters, retain_graph=True)
                w = torch.cat([h.reshape(-1) for h in hv])
                value, v = float(v @ w), w
        state["v"] = v.detach()
        return {"edge_ratio": value * made.optimizer.param_groups[0]["lr"] / 2}

    return measure


def _reaches_the_edge(truth: Truth) -> Labels:
    """Expect `edge_of_stability` from where λmax first comes to 0.85 of 2/lr to where it first passes 1."""
    ratio, steps = truth["edge_ratio"], truth.steps
    if not (ratio[-len(ratio) // 3 :] > 0.9).all() or not (ratio > 1).any():
        return {}
    first, last = int(steps[(ratio > 0.85).argmax()]), int(steps[(ratio > 1).argmax()])
    room = round(0.05 * steps[-1])
    return {"edge_of_stability": Expected(FIRED, (max(0, first - room), last + room))}


def _edge(seed: int, width: int, lr: float, num: int, steps: int, dense: int) -> Training:
    made = at_the_edge(seed, width, lr, num, steps)
    made.dense_every, made.label, made.every = (
        dense,
        _reaches_the_edge,
        {"stability": steps // 40, "hessian.top": steps // 10},
    )
    made.facts = sharpness(made, made.train)
    return made


def _bounces(fraction: float) -> Callable[[Truth], Labels]:
    """Expect `step_too_large` within the first part of the run."""
    return lambda truth: {"step_too_large": Expected(FIRED, (0, round(fraction * truth.steps[-1]) + slack(truth)))}


SETTINGS = [
    faulty(
        "large-sharp-start",
        FOR_THRESHOLDS,
        lambda s: of(
            scaled(mlp(64, 64, 64, 64, 10), 4.0),
            digits(300, s),
            lambda m: sgd(m, 1.0),
            400,
            batch_size=None,
            label=_bounces(0.1),
        ),
        0,
        1,
    ),
    faulty(
        "large-adam",
        FOR_THRESHOLDS,
        lambda s: of(mlp(64, 100, 100, 10), digits(800, s), lambda m: adamw(m, 1.0), 400, label=_bounces(0.1)),
    ),
    faulty(
        "large-kicked",
        FOR_THRESHOLDS,  # the rate is multiplied by 60 half-way
        lambda s: of(
            mlp(20, 64, 64, 5),
            blobs(5, 20, 1500, s, distance=4),
            lambda m: sgd(m, 0.05, 0.9),
            500,
            lr_factor=_kicked(250, 60),
            label=always("step_too_large", (245, 275)),
        ),
    ),
    faulty(
        "large-regression",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(5, 40, 1),
            regression(600, 5, s),
            lambda m: sgd(m, 0.9),
            300,
            loss=mse_loss,
            batch_size=None,
            label=_bounces(0.1),
            clip=5.0,
        ),
    ),
    faulty(
        "large-deep-start",
        FOR_REPORT,
        lambda s: of(
            scaled(mlp(64, 80, 80, 80, 10), 4.0),
            digits(400, s),
            lambda m: sgd(m, 1.0),
            400,
            batch_size=None,
            label=_bounces(0.1),
        ),
        10,
    ),
    faulty(
        "large-transformer",
        FOR_REPORT,
        lambda s: of(
            Transformer(12, 12, 32, 2, 2),
            markov(12, 12, 800, s),
            lambda m: adamw(m, 0.5),
            250,
            batch_size=32,
            num_probe=64,
            label=_bounces(0.1),
        ),
        10,
    ),
    faulty(
        "large-kicked-cnn",
        FOR_REPORT,
        lambda s: of(
            cnn((6, 8), 24, norm=False),
            digits(700, s, as_images=True),
            lambda m: sgd(m, 0.03, 0.9),
            300,
            lr_factor=_kicked(180, 80),
            label=always("step_too_large", (175, 200)),
        ),
        10,
    ),
    faulty(
        "large-adam-mixture",
        FOR_REPORT,
        lambda s: of(
            mlp(16, 50, 50, 4, activation=nn.Tanh),
            blobs(4, 16, 1000, s, distance=3),
            lambda m: adamw(m, 2.0),
            400,
            label=_bounces(0.1),
        ),
        10,
    ),
    faulty(
        "small-sgd",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(64, 128, 10), digits(1000, s), lambda m: sgd(m, 3e-4), 500, label=always("step_too_small", (0, 100))
        ),
        0,
        1,
    ),
    faulty(
        "small-adam",
        FOR_THRESHOLDS,
        lambda s: of(
            mlp(20, 64, 64, 4),
            blobs(4, 20, 1500, s, distance=4),
            lambda m: adamw(m, 3e-6),
            500,
            label=always("step_too_small", (0, 100)),
        ),
    ),
    faulty(
        "small-cnn",
        FOR_REPORT,
        lambda s: of(
            cnn((6, 12), 32),
            digits(900, s, as_images=True),
            lambda m: sgd(m, 2e-4),
            250,
            label=always("step_too_small", (0, 50)),
        ),
        10,
    ),
    faulty(
        "small-regression",
        FOR_REPORT,
        lambda s: of(
            mlp(8, 80, 80, 1, activation=nn.Tanh),
            regression(1500, 8, s),
            lambda m: adamw(m, 2e-6),
            500,
            loss=mse_loss,
            label=always("step_too_small", (0, 100)),
        ),
        10,
    ),
    faulty(
        "small-momentum",
        FOR_REPORT,
        lambda s: of(
            mlp(64, 64, 64, 10, activation=nn.GELU),
            digits(800, s),
            lambda m: sgd(m, 1e-4, 0.9),
            500,
            label=always("step_too_small", (0, 100)),
        ),
        10,
    ),
    faulty("edge-tanh", FOR_THRESHOLDS, lambda s: _edge(s, 80, 0.25, 300, 900, 30), 0, 1),
    faulty("edge-tanh-wide", FOR_REPORT, lambda s: _edge(s, 120, 0.2, 400, 1000, 30), 10, 11),
    look_alike(
        "below-the-edge",
        FOR_THRESHOLDS,
        lambda s: _edge(s, 60, 0.03, 300, 700, 50),
        quiet="edge_of_stability step_too_large step_too_small",
    ),
    look_alike(
        "below-the-edge-wide",
        FOR_REPORT,
        lambda s: _edge(s, 100, 0.02, 400, 700, 50),
        10,
        quiet="edge_of_stability step_too_large step_too_small",
    ),
    look_alike(
        "converged-long-ago",
        FOR_THRESHOLDS,  # it hardly moves, because it is done
        lambda s: of(mlp(20, 64, 3), blobs(3, 20, 1000, s, distance=8), lambda m: sgd(m, 0.1, 0.9, 1e-3), 800),
        quiet="step_too_small underfitting overfitting",
    ),
    look_alike(
        "converged-regression",
        FOR_REPORT,
        lambda s: of(
            mlp(6, 32, 1),
            regression(2000, 6, s, noise=0.3, kind="linear"),
            lambda m: adamw(m, 5e-3, 0.01),
            800,
            loss=mse_loss,
            lr_factor=lambda t: 0.01 if t > 500 else 1.0,
        ),
        10,
        quiet="step_too_small underfitting overfitting",
    ),
]
